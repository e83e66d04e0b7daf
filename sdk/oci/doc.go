// Package oci is for discoverers of containers that an OCI runtime runs, whoever
// manages them: it describes a container by its specification, the config.json of its
// bundle, which containerd, CRI-O, Podman and bare runtimes all write alike.
//
// It reads what it is given and no more: it opens no file and knows no runtime's
// directories. It must never trust what it reads: a specification is written by
// whoever made the container.
package oci
