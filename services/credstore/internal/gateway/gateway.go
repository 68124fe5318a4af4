package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	credstorev1 "github.com/credstore/credstore/gen/go/credstore/v1"
	gatewayv1 "github.com/credstore/credstore/gen/go/gateway/credstore/v1"
	"github.com/credstore/credstore/services/credstore/internal/jsoncheck"
)

// MaxBody is the default of Config.MaxBody.
const MaxBody = 1 << 20

// lingerTime is how far the end of a stream keeps behind the answer while the
// client is sending. Both travel the same way, so that the client sees the pause
// however far it is; it is long enough for a busy one.
const lingerTime = 250 * time.Millisecond

// remoteKey carries the caller's network address to the server.
const remoteKey = "credstore-remote"

// Config is what a gateway needs.
type Config struct {
	// Conn leads to the gRPC server inside this process. Required; the caller
	// closes it.
	Conn grpc.ClientConnInterface
	// Authenticate says whether a caller at the network address may go on, by
	// the values of its authorization header. Its error carries a gRPC status.
	// Required.
	Authenticate func(ctx context.Context, remote string, authorization []string) error
	// Ready says whether the process can serve; nil means always.
	Ready func() bool
	// OpenAPI is what /openapi.json answers.
	OpenAPI []byte
	// MaxBody is the greatest length of a body in bytes; 0 means MaxBody.
	MaxBody int64
	// Logger gets panics; nil discards.
	Logger *slog.Logger
}

// handler is the gateway.
type handler struct {
	cfg   Config
	table []*route
	mux   *runtime.ServeMux
}

// New returns the handler of the REST side. It fails for a contract that it does
// not cover. The context bounds nothing: the handler has no goroutines of its
// own.
func New(ctx context.Context, cfg Config) (http.Handler, error) {
	if cfg.Conn == nil || cfg.Authenticate == nil {
		return nil, errors.New("gateway: Conn and Authenticate are required")
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = MaxBody
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	table, err := routeTable(services())
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	h := &handler{cfg: cfg, table: table, mux: newMux()}
	return h, errors.Join(
		gatewayv1.RegisterProjectServiceHandlerClient(ctx, h.mux, credstorev1.NewProjectServiceClient(cfg.Conn)),
		gatewayv1.RegisterTokenServiceHandlerClient(ctx, h.mux, credstorev1.NewTokenServiceClient(cfg.Conn)),
		gatewayv1.RegisterCredentialServiceHandlerClient(ctx, h.mux, credstorev1.NewCredentialServiceClient(cfg.Conn)),
		gatewayv1.RegisterSecretStoreServiceHandlerClient(ctx, h.mux, credstorev1.NewSecretStoreServiceClient(cfg.Conn)),
		gatewayv1.RegisterInjectionServiceHandlerClient(ctx, h.mux, credstorev1.NewInjectionServiceClient(cfg.Conn)),
	)
}

// services are those that New registers.
func services() []protoreflect.ServiceDescriptor {
	return []protoreflect.ServiceDescriptor{
		credstorev1.File_credstore_v1_project_proto.Services().ByName("ProjectService"),
		credstorev1.File_credstore_v1_token_proto.Services().ByName("TokenService"),
		credstorev1.File_credstore_v1_credential_proto.Services().ByName("CredentialService"),
		credstorev1.File_credstore_v1_secret_store_proto.Services().ByName("SecretStoreService"),
		credstorev1.File_credstore_v1_injection_proto.Services().ByName("InjectionService"),
	}
}

// newMux returns the generated code's multiplexer. It sees only requests that
// passed every check here, with the headers that forward left.
func newMux() *runtime.ServeMux {
	return runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, plainErrors{&runtime.JSONPb{}}),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithWriteContentLength(),
		runtime.WithIncomingHeaderMatcher(func(key string) (string, bool) {
			// The runtime passes Authorization on by itself.
			return "traceparent", key == "Traceparent"
		}),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingTrailerMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithMetadata(func(ctx context.Context, _ *http.Request) metadata.MD {
			return metadata.Pairs(remoteKey, originOf(ctx).remote)
		}),
		runtime.WithErrorHandler(func(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
			writeStatus(w, 0, answerOf(ctx, err))
		}),
		runtime.WithStreamErrorHandler(answerOf),
	)
}

// Remote returns the network address that a call of the gateway carries for its
// caller. It is to be believed only of calls that come over Config.Conn.
func Remote(md metadata.MD) (string, bool) {
	v := md.Get(remoteKey)
	if len(v) != 1 {
		return "", false
	}
	return v[0], true
}

// origin is what the generated code's hooks need to know of a request.
type origin struct {
	remote string // the caller's network address
	route  *route
}

type originKey struct{}

func originOf(ctx context.Context) origin {
	o, _ := ctx.Value(originKey{}).(origin)
	return o
}

// ServeHTTP answers one request; the package comment tells in which order.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	defer func() {
		if p := recover(); p != nil {
			h.panicked(w, r, p)
		}
	}()
	if h.servePublic(w, r) {
		return
	}
	if err := h.cfg.Authenticate(r.Context(), r.RemoteAddr, r.Header.Values("Authorization")); err != nil {
		h.refuse(w, r, func() { writeStatus(w, 0, withReason(status.Convert(err))) })
		return
	}
	forward, route, refused := h.check(w, r)
	switch {
	case refused != nil:
		h.refuse(w, r, func() { refused.write(w) })
	case forward == nil: // OPTIONS
		w.WriteHeader(http.StatusNoContent)
	case route.stream:
		// A stream lives as long as its client reads.
		if err := http.NewResponseController(w).SetWriteDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
			h.cfg.Logger.Warn("stream keeps its write deadline", "error", err)
		}
		h.mux.ServeHTTP(&streamWriter{ResponseWriter: w}, forward)
	default:
		h.mux.ServeHTTP(w, forward)
	}
}

// panicked answers for a defect. The value of the panic is not logged: it may
// hold what was being handled.
func (h *handler) panicked(w http.ResponseWriter, r *http.Request, p any) {
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p) //nolint:forbidigo // how a handler says that the connection is to be cut
	}
	h.cfg.Logger.Error("panic in the gateway", "method", r.Method, "type", fmt.Sprintf("%T", p), "stack", stack())
	(&refusal{
		http: http.StatusInternalServerError, code: codes.Internal, reason: reasonInternal,
		message: "the server failed; its log says why",
	}).write(w)
}

// servePublic answers what needs no authentication.
func (h *handler) servePublic(w http.ResponseWriter, r *http.Request) bool {
	var answer func()
	switch r.URL.Path {
	case "/healthz":
		answer = func() { writeText(w, http.StatusOK, "ok\n") }
	case "/readyz":
		answer = func() {
			if h.cfg.Ready != nil && !h.cfg.Ready() {
				writeText(w, http.StatusServiceUnavailable, "not ready\n")
				return
			}
			writeText(w, http.StatusOK, "ok\n")
		}
	case "/openapi.json":
		answer = func() {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(h.cfg.OpenAPI)
		}
	default:
		return false
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		answer()
	default:
		h.refuse(w, r, func() { methodNotAllowed([]string{http.MethodGet, http.MethodHead}).write(w) })
	}
	return true
}

func writeText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text)
}

// refuse writes an answer that may leave the body unread.
//
// On HTTP/1 the connection ends behind it: net/http would read on to keep it. On
// HTTP/2 a body is a stream of its own, which net/http resets when the handler
// returns, and "Connection: close" would be a GOAWAY that can overtake the answer.
// Clients that meet either while they send drop the answer, so there it goes out
// first and the handler lingers.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, write func()) {
	unread := r.ContentLength != 0 && r.Body != http.NoBody
	if unread && r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
	write()
	if unread && r.ProtoMajor != 1 {
		h.linger(w, r)
	}
}

// linger sends what is written and gives the client time to see it. It throws away
// no more of the body than an accepted one can have, so that a client that sends
// it all before it reads comes to its end, and keeps nothing.
func (h *handler) linger(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), lingerTime)
	defer cancel()
	control := http.NewResponseController(w)
	until, _ := ctx.Deadline()
	if control.Flush() != nil || control.SetReadDeadline(until) != nil {
		return
	}
	if _, err := io.CopyN(io.Discard, r.Body, h.cfg.MaxBody+1); err != nil {
		return // the body ended, the client gave it up, or the time did
	}
	<-ctx.Done()
}

// check returns the request to hand on and its rule; a nil request for an
// OPTIONS that is answered.
func (h *handler) check(w http.ResponseWriter, r *http.Request) (*http.Request, *route, *refusal) {
	path := r.URL.EscapedPath()
	if strings.ContainsAny(path, "%\\") {
		return nil, nil, &refusal{
			http: http.StatusBadRequest, code: codes.InvalidArgument, reason: reasonMalformedURL,
			message: "the path holds percent-encoded characters or a backslash: no name needs them",
		}
	}
	elements, verb := splitPath(path)
	route, allowed := find(h.table, r.Method, elements, verb)
	switch {
	case route == nil && len(allowed) == 0, !strings.HasPrefix(path, "/"), strings.HasSuffix(path, ":"):
		return nil, nil, &refusal{
			http: http.StatusNotFound, code: codes.NotFound, reason: reasonPathUnknown,
			message: "the contract has no such path: /openapi.json lists them",
		}
	case route == nil && r.Method == http.MethodOptions:
		for _, m := range append(allowed, http.MethodOptions) {
			w.Header().Add("Allow", m)
		}
		return nil, nil, nil
	case route == nil:
		return nil, nil, methodNotAllowed(append(allowed, http.MethodOptions))
	}
	found, ok := route.checkQuery(r.URL.RawQuery)
	if !ok {
		return nil, nil, &refusal{
			http: http.StatusBadRequest, code: codes.InvalidArgument, reason: reasonMalformedURL,
			message: "the query cannot be read: it holds a semicolon or a broken percent-encoding",
		}
	}
	if len(found) > 0 {
		return nil, nil, invalid("the query does not fit the request", found)
	}
	body, refused := h.readBody(w, r, route)
	if refused != nil {
		return nil, nil, refused
	}
	if route.body != nil && len(body) > 0 {
		found, err := jsoncheck.Check(body, route.body, route.boundValues(elements))
		if err != nil {
			return nil, nil, &refusal{
				http: http.StatusBadRequest, code: codes.InvalidArgument, reason: reasonMalformedBody, message: "the body " + err.Error(),
			}
		}
		if len(found) > 0 {
			return nil, nil, invalid("the body does not fit the request", found)
		}
	}
	return forwarded(r, route, body), route, nil
}

func methodNotAllowed(allowed []string) *refusal {
	return &refusal{
		http: http.StatusMethodNotAllowed, code: codes.Unimplemented, reason: reasonMethodNotAllowed,
		message: "the path exists, with " + strings.Join(allowed, ", "), allow: allowed,
	}
}

// readBody reads a body that is announced as one that the rule takes.
func (h *handler) readBody(w http.ResponseWriter, r *http.Request, route *route) ([]byte, *refusal) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	tooLarge := &refusal{
		http: http.StatusRequestEntityTooLarge, code: codes.ResourceExhausted, reason: reasonBodyTooLarge,
		message: fmt.Sprintf("the body is larger than %d bytes", h.cfg.MaxBody),
	}
	switch {
	case route.body == nil:
		return nil, &refusal{
			http: http.StatusBadRequest, code: codes.InvalidArgument, reason: reasonBodyUnexpected,
			message: "this method takes no body",
		}
	case r.ContentLength > h.cfg.MaxBody:
		return nil, tooLarge
	case !isJSON(r.Header):
		return nil, &refusal{
			http: http.StatusUnsupportedMediaType, code: codes.InvalidArgument, reason: reasonMediaType,
			message: "the body must be of Content-Type application/json, in UTF-8 and without Content-Encoding",
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.cfg.MaxBody))
	var limit *http.MaxBytesError
	switch {
	case errors.As(err, &limit):
		return nil, tooLarge
	case err != nil:
		return nil, &refusal{
			http: http.StatusBadRequest, code: codes.InvalidArgument, reason: reasonMalformedBody,
			message: "the body could not be read to its end",
		}
	}
	r.Body = http.NoBody
	return body, nil
}

func isJSON(h http.Header) bool {
	if len(h.Values("Content-Type")) != 1 || h.Get("Content-Encoding") != "" {
		return false
	}
	kind, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return false
	}
	charset, ok := params["charset"]
	return !ok || strings.EqualFold(charset, "utf-8")
}

// forwarded returns the request that the generated code sees: nothing of the
// caller's is left that it would pass on but what is named here.
func forwarded(r *http.Request, route *route, body []byte) *http.Request {
	f := r.Clone(context.WithValue(r.Context(), originKey{}, origin{r.RemoteAddr, route}))
	f.Header = make(http.Header, 3)
	for _, name := range [...]string{"Authorization", "Traceparent"} {
		if v := r.Header.Values(name); len(v) == 1 {
			f.Header.Set(name, v[0])
		}
	}
	f.Header.Set("Content-Type", "application/json")
	// The runtime would make x-forwarded-… of these.
	f.RemoteAddr, f.Host = "", ""
	f.Trailer, f.TransferEncoding = nil, nil
	f.Form, f.PostForm = nil, nil
	f.Body, f.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return f
}
