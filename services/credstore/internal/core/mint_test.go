package core_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/credstore/credstore/pkg/resourcename"
	"github.com/credstore/credstore/services/credstore/internal/core"
	"github.com/credstore/credstore/services/credstore/internal/coretest"
)

// Who was handed a token counts as a consumer with the version that it is from,
// for as long as one that vanished.
func TestMintMakesAConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := coretest.NewIssuer(t)
		h := coretest.New(t, issuer.Use)
		names := row(t, h, "a", 1)
		role := names[1]
		ctx := core.WithPrincipal(t.Context(), &core.Principal{Name: "projects/default/tokens/billing", Role: core.Admin, AllProjects: true})
		for range 3 {
			if _, _, err := h.Store.MintToken(ctx, role, nil); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		list, err := h.Store.ListConsumers(coretest.AdminContext(t), role)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "consumers", list, []core.Consumer{{Principal: "projects/default/tokens/billing", Version: 1, Named: true, Since: began}})
		err = h.Store.DeleteCredential(coretest.AdminContext(t), core.DeleteCredentialRequest{Name: role})
		wantReason(t, "delete while a token is out", err, core.ErrPrecondition, core.ReasonCredentialInUse)

		// What else the caller does takes nothing from that.
		create(t, h, demo, "one")
		watch, err := h.Store.Watch(ctx, core.WatchRequest{Project: demoProject, View: core.ViewPayload, Names: []resourcename.Credential{demo}})
		if err != nil {
			t.Fatal(err)
		}
		watch.Close()
		if list, err := h.Store.ListConsumers(coretest.AdminContext(t), role); err != nil || len(list) != 1 {
			t.Errorf("after a watch of something else: %v, %v", list, err)
		}

		// A token of the next version says that the old one is not used any more.
		time.Sleep(10 * time.Minute)
		mustPut(t, h, role, coretest.AssumeRole(t, names[0], "second"))
		if _, _, err := h.Store.MintToken(ctx, role, nil); err != nil {
			t.Fatal(err)
		}
		list, err = h.Store.ListConsumers(coretest.AdminContext(t), role)
		if err != nil || len(list) != 1 || list[0].Version != 2 {
			t.Errorf("after the next version: %v, %v", list, err)
		}
		time.Sleep(14 * time.Minute)
		if list, err = h.Store.ListConsumers(coretest.AdminContext(t), role); err != nil || len(list) != 1 {
			t.Errorf("14 minutes after the last token: %v, %v", list, err)
		}
		time.Sleep(time.Minute)
		if err := h.Store.DeleteCredential(coretest.AdminContext(t), core.DeleteCredentialRequest{Name: role}); err != nil {
			t.Errorf("15 minutes after the last token: %v", err)
		}
	})
}
