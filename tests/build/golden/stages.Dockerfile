ARG VERSION=1.22 EMPTY= NONE
FROM --platform=$BUILDPLATFORM golang:${VERSION} AS Build
RUN --mount=type=cache,target=/root/.cache/go --mount=type=bind,target=.,rw \
    --mount=type=secret,id=token --mount=type=ssh,required --mount=type=tmpfs,target=/tmp,size=64m \
    --mount="type=cache,id=apt,\"target=/var/a,b\",sharing=locked" --network=none --security=sandbox go build -o /app
from scratch
copy --from=build --chown=1:2 --chmod=0755 --link --parents --exclude=*.md --exclude=*.txt /app ["x" /bin/
COPY ["with blank", "/to here/"]
ADD --checksum=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef --keep-git-dir=true --unpack=false https://example.com/a.tar /
ONBUILD COPY --chmod=644 . /src
ONBUILD RUN ["make"]
HEALTHCHECK NONE
MAINTAINER somebody
