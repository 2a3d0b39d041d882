"""Images: a tarball with metadata, from a stranger's archive to layers that overlay can stack.

reference     what an image is called, and which platform runs here
blobs         content by its digest
tar           an archive's members, in a single pass
compression   gzip, zstd or plain
layers        a tar stream in, a directory for overlay out
store         the OCI layout on disk, each layer unpacked once
archive       what docker save, podman save and skopeo wrote
registry      the distribution protocol, as a client speaks it
downloads     blobs on their way here, resumed and shared
provenance    which repositories have a blob
"""
