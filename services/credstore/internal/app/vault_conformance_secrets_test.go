//go:build conformance

package app_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
)

// Deleted, undeleted, destroyed, written anew, pinned: the status says which, the
// last good set stays, and what is repaired in Vault is repaired here.
func TestConformanceVaultVersions(t *testing.T) {
	v := newVault(t)
	s := newVaultSite(t)
	s.addVault(t, v, time.Second)

	t.Run("Deleted", func(t *testing.T) {
		n := v.Put(t, "app/db", map[string]string{"k": "first"})
		i := s.addWorkload(t, "deleted", secretItem("f", "vault", "app/db", "k"))
		i.complete(t)
		set := i.published(t)
		stays := func() {
			t.Helper()
			s.reported(t, "deleted", "deleted", "f", "version 1 was")
			if got := i.published(t); got != set {
				t.Error("the set was written again")
			}
			i.has(t, map[string]string{"f": "first"})
		}
		v.Delete(t, "app/db", n)
		s.item(t, soon, "deleted", "f", itemFailed, "version 1 was deleted at ")
		stays()
		v.Undelete(t, "app/db", n)
		s.item(t, soon, "deleted", "f", itemOK, "")
		s.reported(t, "deleted", "deleted", "f", "")
		v.Destroy(t, "app/db", n)
		s.item(t, soon, "deleted", "f", itemFailed, "404 version 1 was destroyed")
		stays()
		v.Put(t, "app/db", map[string]string{"k": "second"})
		i.file(t, soon, "f", "second")
		s.item(t, soon, "deleted", "f", itemOK, "")
		s.reported(t, "deleted", "deleted", "f", "")
	})

	t.Run("Pinned", func(t *testing.T) {
		v.Put(t, "app/pin", map[string]string{"k": "first"})
		i := s.addWorkload(t, "pinned",
			pinned(secretItem("one", "vault", "app/pin", "k"), 1), secretItem("newest", "vault", "app/pin", "k"))
		i.complete(t)
		v.Put(t, "app/pin", map[string]string{"k": "second"})
		i.file(t, soon, "newest", "second")
		i.has(t, map[string]string{"one": "first", "newest": "second"})

		v.Delete(t, "app/pin", 1)
		s.item(t, soon, "pinned", "one", itemFailed, "version 1 was deleted")
		s.item(t, soon, "pinned", "newest", itemOK, "")
		i.has(t, map[string]string{"one": "first", "newest": "second"})
		v.Undelete(t, "app/pin", 1)
		s.item(t, soon, "pinned", "one", itemOK, "")
		v.Destroy(t, "app/pin", 1)
		s.item(t, soon, "pinned", "one", itemFailed, "version 1 was destroyed")

		s.changeInjection(t, "pinned", pinned(secretItem("one", "vault", "app/pin", "k"), 9), secretItem("newest", "vault", "app/pin", "k"))
		s.item(t, soon, "pinned", "one", itemFailed, "404 there is no version 9 at this path")
		i.has(t, map[string]string{"one": "first", "newest": "second"})
		s.changeInjection(t, "pinned", pinned(secretItem("one", "vault", "app/pin", "k"), 2), secretItem("newest", "vault", "app/pin", "k"))
		i.file(t, soon, "one", "second")
		s.item(t, soon, "pinned", "one", itemOK, "")
	})
}

// What an operator gets wrong fails alone, with Vault's answer; the rest of the
// injection goes on, and a group stays together.
func TestConformanceVaultMistakes(t *testing.T) {
	v := newVault(t)
	s := newVaultSite(t)
	s.addVault(t, v, time.Second)
	s.addStore(t, "forbidden-mount", "vault-login", &credstorev1.VaultProvider{Address: v.Address, Mount: "nosuch"}, time.Second)
	s.addLogin(t, "broad", vaultTokenPayload(v.RootToken))
	s.addStore(t, "wrong-mount", "broad", &credstorev1.VaultProvider{Address: v.Address, Mount: "nosuch"}, time.Second)
	v.Put(t, "app/db", map[string]string{"k": "first", "user": "me"})
	v.Put(t, "other/db", map[string]string{"k": "not for the policy"})

	mistakes := []struct {
		name string
		item *credstorev1.Item
		text string
	}{
		{"WrongPath", secretItem("bad", "vault", "app/nosuch", "k"), "read: no such secret: 404 there is nothing at this path"},
		{"MissingKey", secretItem("bad", "vault", "app/db", "nosuch"), `the secret has no key "nosuch"`},
		{"WrongMount", secretItem("bad", "wrong-mount", "app/db", "k"), "read: no such secret: 404 no handler for route"},
		{"ForbiddenMount", secretItem("bad", "forbidden-mount", "app/db", "k"), "read: refused: 403 permission denied"},
		{"ForbiddenPath", secretItem("bad", "vault", "other/db", "k"), "read: refused: 403 permission denied"},
	}
	for n, mistake := range mistakes {
		t.Run(mistake.name, func(t *testing.T) {
			id := fmt.Sprintf("mistake-%d", n)
			good := secretItem("good", "vault", "app/db", "k")
			i := s.addWorkload(t, id, good)
			i.complete(t)
			s.changeInjection(t, id, good, mistake.item, secretItem("added", "vault", "app/db", "user"))
			s.item(t, soon, id, "bad", itemFailed, mistake.text)
			s.item(t, soon, id, "good", itemOK, "")
			i.file(t, soon, "added", "me")
			s.reported(t, id, id, "bad", mistake.text)
			i.has(t, map[string]string{"good": "first", "added": "me"})

			// A first start waits for all, and says for what.
			newcomer := s.inject(t, "newcomer", s.addToken(t, id+"-2", map[string]string{"app": id}))
			await(t, soon, func() string {
				reasons := strings.Join(newcomer.engine.Status().Reasons, "; ")
				if !strings.Contains(reasons, mistake.text) {
					return fmt.Sprintf("the newcomer is not ready because of %q; want %q", reasons, mistake.text)
				}
				return ""
			})
			if _, err := os.Lstat(filepath.Join(newcomer.dir, "good")); !os.IsNotExist(err) {
				t.Errorf("a first start did not wait: %v", err)
			}
			content := fmt.Sprintf("fixed-%d", n)
			right := proto.CloneOf(good)
			right.GetFile().Path = "bad"
			s.changeInjection(t, id, good, right)
			newcomer.complete(t)
			v.Put(t, "app/db", map[string]string{"k": content, "user": "me"})
			for _, i := range []*vaultInjector{i, newcomer} {
				i.file(t, soon, "bad", content)
				i.has(t, map[string]string{"good": content, "bad": content})
			}
			v.Put(t, "app/db", map[string]string{"k": "first", "user": "me"})
			i.file(t, soon, "good", "first")
		})
	}

	t.Run("Group", func(t *testing.T) {
		v.Put(t, "app/user", map[string]string{"k": "user-1"})
		v.Put(t, "app/password", map[string]string{"k": "password-1"})
		v.Put(t, "app/alone", map[string]string{"k": "alone-1"})
		i := s.addWorkload(t, "group",
			grouped(secretItem("user", "vault", "app/user", "k"), "login"),
			grouped(secretItem("password", "vault", "app/password", "k"), "login"),
			secretItem("alone", "vault", "app/alone", "k"))
		i.complete(t)
		v.Delete(t, "app/password", 1)
		s.item(t, soon, "group", "password", itemFailed, "version 1 was deleted")
		v.Put(t, "app/user", map[string]string{"k": "user-2"})
		v.Put(t, "app/alone", map[string]string{"k": "alone-2"})
		i.file(t, soon, "alone", "alone-2")
		// The server has the new user, and the injector knows.
		s.reported(t, "group", "group", "user", "login")
		await(t, soon, func() string {
			status, err := s.api.Injections.GetInjectionStatus(t.Context(), &credstorev1.GetInjectionStatusRequest{Name: defaultParent + "/injections/group"})
			if err != nil {
				return err.Error()
			}
			for _, it := range status.GetItems() {
				if it.GetPath() == "user" && it.GetVersion() == "2" && status.GetWorkloads()[0].GetAppliedRevision() == status.GetWorkloads()[0].GetSentRevision() {
					return ""
				}
			}
			return "the second user was not sent to the injector, or is not processed"
		})
		i.has(t, map[string]string{"user": "user-1", "password": "password-1", "alone": "alone-2"})
		v.Put(t, "app/password", map[string]string{"k": "password-2"})
		i.file(t, soon, "password", "password-2")
		i.has(t, map[string]string{"user": "user-2", "password": "password-2", "alone": "alone-2"})
	})
}
