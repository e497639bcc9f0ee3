# The image with all binaries, if you have a builder: docker buildx build --platform linux/amd64,linux/arm64 .
# Without one: tools/image.
FROM --platform=$BUILDPLATFORM docker.io/library/rust:1.95-bookworm AS build
ARG TARGETARCH
# Debian has no cross compiler for its own architecture.
RUN case "$TARGETARCH" in \
        amd64) triple=x86_64-unknown-linux-gnu package=gcc-x86-64-linux-gnu ;; \
        arm64) triple=aarch64-unknown-linux-gnu package=gcc-aarch64-linux-gnu ;; \
        *) echo "no such architecture: $TARGETARCH" >&2; exit 1 ;; \
    esac \
    && echo "$triple" >/target \
    && rustup target add "$triple" \
    && if ! command -v "${triple%%-*}-linux-gnu-gcc"; then \
        apt-get update && apt-get install --yes --no-install-recommends "$package"; \
    fi
WORKDIR /kuik
COPY . .
RUN target=$(cat /target) \
    && RUSTFLAGS="-C strip=symbols -C linker=${target%%-*}-linux-gnu-gcc" cargo build --locked --profile dist --target "$target" \
        -p kuik-bin --all-features --bin kuik \
    && mkdir /out && cp "target/$target/dist/kuik" /out/ \
    && for name in controller proxy registry webhook; do ln -s kuik "/out/kuik-$name"; done

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/ /
ENV PATH=/
USER 65532:65532
ENTRYPOINT ["/kuik"]
