package grpcapi

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/credstore/credstore/services/credstore/internal/core"
)

// healthService answers gRPC health checks. Check is the only method of the
// server that needs no authentication: load balancers have no token, and it
// tells no more than that the server can serve. Watch and List are not
// implemented; clients take that for healthy.
type healthService struct {
	grpc_health_v1.UnimplementedHealthServer

	server   *Server
	services *grpc.Server
}

// Check says whether the server, or one of its services, can serve.
func (h healthService) Check(_ context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if name := r.GetService(); name != "" {
		if _, ok := h.services.GetServiceInfo()[name]; !ok {
			return nil, &core.Error{Kind: core.ErrNotFound, Reason: core.ReasonNotFound, Message: "the server has no such service"}
		}
	}
	status := grpc_health_v1.HealthCheckResponse_NOT_SERVING
	if h.server.cfg.Store.Ready() && !h.server.draining.Load() {
		status = grpc_health_v1.HealthCheckResponse_SERVING
	}
	return &grpc_health_v1.HealthCheckResponse{Status: status}, nil
}
