package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestLinks holds what the injector's binary must not link: it runs beside every
// workload, and is meant to be small.
func TestLinks(t *testing.T) {
	banned := map[string]string{
		"modernc.org/sqlite":                     "the server's storage",
		"go.etcd.io/":                            "the server's storage",
		"github.com/hashicorp/":                  "the server reaches Vault, the injector does not",
		"github.com/aws/":                        "the server reaches AWS, the injector does not",
		"github.com/Azure/":                      "the server reaches Azure, the injector does not",
		"cloud.google.com/":                      "the server reaches Google, the injector does not",
		"k8s.io/client-go":                       "25 MB of binary",
		"github.com/grpc-ecosystem/grpc-gateway": "the server's REST side",
		"github.com/credstore/credstore/services/credstore": "services do not import each other",
		"github.com/credstore/credstore/pkg/provider":       "providers belong to the server",
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 100 {
		t.Fatalf("only %d dependencies: go list did not list them", len(deps))
	}
	for _, dep := range deps {
		for prefix, why := range banned {
			if strings.HasPrefix(dep, prefix) {
				t.Errorf("the injector links %s: %s", dep, why)
			}
		}
	}
}
