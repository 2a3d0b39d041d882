# escape=`
FROM busybox
COPY a `
  C:\dir\
RUN <<EOF
one

two
EOF
ENV P=a` b Q="x`"y"
