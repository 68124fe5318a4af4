package grpcapi

import (
	"strings"
	"testing"

	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func TestPermissionTable(t *testing.T) {
	table, err := permissionTable(contract())
	if err != nil {
		t.Fatal(err)
	}
	if got := table["/credstore.v1.CredentialService/AccessCredential"]; got != "credentials.access" {
		t.Errorf("AccessCredential needs %q", got)
	}
	if len(table) < 35 {
		t.Errorf("only %d methods", len(table))
	}
}

func TestMethodWithoutPermission(t *testing.T) {
	health := grpc_health_v1.File_grpc_health_v1_health_proto.Services().ByName("Health")
	_, err := permissionTable([]protoreflect.ServiceDescriptor{health})
	if err == nil || !strings.Contains(err.Error(), "grpc.health.v1.Health.Check") {
		t.Errorf("got %v", err)
	}
}
