#!/bin/bash
# Sets the course up on a laptop that has no network: the bundle's half of `./dev bundle`, which puts this file beside
#
#     made-for          distribution, release, processor: what the packages are for
#     debs/             Debian packages, with the index by which apt reads a folder
#     wheels/           Python packages, python-prctl already built
#     images/           images, as OCI archives
#     reveal.js-…/      what `./dev slides` would fetch
#     checkout.tar      minicontainer itself, with the course
#
#     sudo bash install.sh [FOLDER]       FOLDER: where the checkout goes; /opt/minicontainer if you say nothing
#
# A second call brings an installation up to date. Notebooks that you worked in lie in your home, and are not touched.
set -euo pipefail
umask 022
bundle=$(dirname "$(readlink -f "$0")")
folder=$(realpath -m "${1:-/opt/minicontainer}")

stop() { echo "install.sh: $*" >&2; exit 1; }
say() { echo "install.sh: $*"; }

[ "$(id -u)" = 0 ] || stop "packages are installed by root:  sudo bash $0 $*"
read -r made_for <"$bundle/made-for"
here="$(. /etc/os-release && echo "$ID $VERSION_ID") $(dpkg --print-architecture)"
[ "$here" = "$made_for" ] || stop "this bundle is for $made_for, and this machine is $here: make one on a machine like it"
# $SUDO_USER's, so that the labs can be written in; else root's.
owner=${SUDO_UID:-0}:${SUDO_GID:-0}

# ------------------------------------------------------------------------------------------------------ Debian packages

# apt takes what is missing from the folder, by lists of its own that go when we go: the laptop's stay as they are.
# trusted: the packages were checked against the distribution's signature when they were fetched; their checksums are in
# the folder's index. Whoever hands you the bundle, you trust as you would with any program.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
ln -s "$bundle/debs" "$bundle/wheels" "$scratch/"    # neither apt's syntax nor pip's has room for a blank in a path
echo "deb [trusted=yes] file:$scratch/debs ./" >"$scratch/sources"
mkdir -p "$scratch/lists/partial"
from_bundle=(-q -o "Dir::Etc::SourceList=$scratch/sources" -o Dir::Etc::SourceParts=/dev/null
             -o "Dir::State::Lists=$scratch/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
             -o APT::Sandbox::User=root -o Acquire::Languages=none)
mapfile -t packages <"$bundle/debs/wanted"
say "Debian packages: ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
{
    apt-get "${from_bundle[@]}" update &&
        apt-get "${from_bundle[@]}" install -y --no-install-recommends "${packages[@]}"
} >"$scratch/log" 2>&1 </dev/null || {
    tail -n 15 "$scratch/log" >&2
    stop "apt-get failed. If it says that something newer is installed already, the bundle is older than this machine"
}

# --------------------------------------------------------------------------- the checkout, its Python packages, its images

say "the checkout: $folder"
mkdir -p "$folder"
tar -xf "$bundle/checkout.tar" -C "$folder" --no-same-owner
say "Python packages, into $folder/.venv"
# The machine's own pip.conf may name servers that are not there now.
PIP_CONFIG_FILE=/dev/null PIP_NO_INDEX=1 PIP_FIND_LINKS="$scratch/wheels" "$folder/dev" setup
rm -rf "$folder"/.venv/reveal.js-*
cp -r "$bundle"/reveal.js-* "$folder/.venv/"
chown -R "$owner" "$folder"
for image in "$bundle"/images/*.tar; do
    say "$(minicontainer load -i "$image")"
done

say "done. Your next step:"
echo
echo "    sudo minicontainer run --rm -it busybox sh      # a container; \`exit\` leaves it"
echo "    minicontainer doctor                            # what this machine can do"
echo "    cd $folder && ./dev notebooks                   # the course"
