// Package protov1 is protocol version 1 between the daemon, its plugins and its
// local clients: messages and gRPC services, generated from the .proto files
// beside this one. Plugin authors in Go rarely need it directly, since packages
// plugin, discover, mesh and sampling wrap it; authors in other languages start
// from the .proto files.
package protov1
