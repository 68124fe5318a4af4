# One file, two images, each with one static program on an empty base:
#
#   docker build --target credstore -t credstore .
#   docker build --target injector -t injector .
#
# Both run as uid 65532, with a read-only root, and check their own health.

FROM golang:1.26.8-bookworm AS build
ENV CGO_ENABLED=0 GOTOOLCHAIN=local GOMODCACHE=/cache/mod GOCACHE=/cache/build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/cache go mod download
COPY gen gen
COPY pkg pkg
COPY services services
RUN --mount=type=cache,target=/cache \
    go build -trimpath -tags grpcnotrace -buildvcs=false -ldflags '-s -w' -o /out/ ./services/credstore ./services/injector
# An empty base has no shell to make folders with; a volume that is mounted for
# the first time takes over the owner and the mode that the image has there.
RUN install -d -m 0700 -o 65532 -g 65532 /folders/var/lib/credstore \
    /folders/run/enroll /folders/run/injected

FROM scratch AS injector
COPY --from=build /out/injector /injector
COPY --from=build --chown=65532:65532 /folders/run /run
USER 65532:65532
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/injector", "health"]
ENTRYPOINT ["/injector"]
CMD ["run"]

FROM scratch AS credstore
# Clouds and external stores are reached over the public web of trust; the
# injector trusts only the authority that it is given, and needs none of these.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/credstore /credstore
COPY --from=build --chown=65532:65532 /folders/var /var
USER 65532:65532
VOLUME /var/lib/credstore
EXPOSE 7443 8443
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/credstore", "health"]
ENTRYPOINT ["/credstore"]
CMD ["serve", "--data", "/var/lib/credstore", "--grpc-listen", "0.0.0.0:7443", "--rest-listen", "0.0.0.0:8443"]

# For docker-compose.yaml only: the same program with a shell around it, which
# fills a new store with the demonstration.
FROM busybox:1.37 AS setup
COPY --from=build /out/credstore /bin/credstore
COPY --from=build --chown=65532:65532 /folders/run /run
COPY tools/compose/setup.sh /setup.sh
USER 65532:65532
ENTRYPOINT ["/bin/sh", "/setup.sh"]
