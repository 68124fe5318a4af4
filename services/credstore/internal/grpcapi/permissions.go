package grpcapi

import (
	"errors"
	"fmt"
	"regexp"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	"github.com/credstore/credstore/services/credstore/internal/core"
)

var permissionForm = regexp.MustCompile(`^[a-z][a-zA-Z]*\.[a-z]+$`)

// permissionTable reads the permission of every method of the services, by full
// method name. A method without one is an error: a server with it does not
// start. The domain asks for the permission; that it asks for the same one is
// tested.
func permissionTable(services []protoreflect.ServiceDescriptor) (map[string]core.Permission, error) {
	table := make(map[string]core.Permission)
	var missing []error
	for _, s := range services {
		for i := range s.Methods().Len() {
			m := s.Methods().Get(i)
			p, _ := proto.GetExtension(m.Options(), credstorev1.E_Permission).(string)
			if !permissionForm.MatchString(p) {
				missing = append(missing, fmt.Errorf("method %s has no option (credstore.v1.permission) of the form resource.verb", m.FullName()))
				continue
			}
			table[fmt.Sprintf("/%s/%s", s.FullName(), m.Name())] = core.Permission(p)
		}
	}
	return table, errors.Join(missing...)
}

// contract lists the services that NewServer registers.
func contract() []protoreflect.ServiceDescriptor {
	return []protoreflect.ServiceDescriptor{
		credstorev1.File_credstore_v1_project_proto.Services().ByName("ProjectService"),
		credstorev1.File_credstore_v1_token_proto.Services().ByName("TokenService"),
		credstorev1.File_credstore_v1_credential_proto.Services().ByName("CredentialService"),
		credstorev1.File_credstore_v1_secret_store_proto.Services().ByName("SecretStoreService"),
		credstorev1.File_credstore_v1_injection_proto.Services().ByName("InjectionService"),
	}
}
