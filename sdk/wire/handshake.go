package wire

import protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"

const (
	// ProtocolVersion is the newest protocol that this SDK speaks, and
	// OldestProtocol the oldest: a daemon and a plugin that were built from
	// different editions speak the newest that both know. A manifest and the
	// handshake both say which.
	ProtocolVersion = 1
	OldestProtocol  = 1

	// CookieKey and CookieValue tell a plugin that the daemon started it. They
	// are no secret: they keep a plugin run by hand from waiting for a host.
	CookieKey   = "EBPF_TRACER_PLUGIN"
	CookieValue = "b7c2f0f5c7c94c1d9a7d6e1e3f0a52d8"

	// Service is the one name under which a plugin offers its services.
	Service = "ebpf-tracer"

	// MaxMessage is the largest message either end takes, in bytes.
	MaxMessage = 4 << 20
	// MaxBatch is the largest batch, in bytes.
	MaxBatch = 1 << 20
	// MaxChange is the largest change in a batch, in bytes. A receiver refuses
	// and counts one that is larger.
	MaxChange = 256 << 10
	// MaxString is the longest string in a change, in bytes.
	MaxString = 32 << 10

	// StreamWindow and ConnectionWindow are how many bytes may be on their way to either
	// end of a stream, and of a connection, that has not taken them yet. They are fixed:
	// gRPC would else measure the connection, with a ping there and back beside every
	// message that follows a pause, and let up to 16 MiB wait.
	StreamWindow     = 512 << 10
	ConnectionWindow = 1 << 20

	// MaxLogLine is the longest line, in bytes, that the daemon takes whole from
	// a plugin's standard error.
	MaxLogLine = 64 << 10

	// LogLevelKey names the environment variable that holds the least level, as
	// slog writes it, that a plugin need log.
	LogLevelKey = "EBPF_TRACER_LOG_LEVEL"
)

// KindName is how a kind is called in directories, manifests and the
// configuration: "discoverer", "mesh", "sampler"; "" for a kind not known.
func KindName(k protov1.Kind) string {
	switch k {
	case protov1.Kind_KIND_DISCOVERER:
		return "discoverer"
	case protov1.Kind_KIND_MESH:
		return "mesh"
	case protov1.Kind_KIND_SAMPLER:
		return "sampler"
	}
	return ""
}

// Versioned is a set under each protocol that this SDK speaks, as the handshake
// wants it.
func Versioned[S any](set S) map[int]S {
	all := map[int]S{}
	for v := OldestProtocol; v <= ProtocolVersion; v++ {
		all[v] = set
	}
	return all
}
