// Package plugin turns an author's discoverer, detector or sampler into a
// plugin process. The whole of an author's main is one call:
//
//	func main() {
//		plugin.Serve(plugin.Discoverer[Config]{
//			Name:    "docker",
//			Version: plugin.Version(),
//			Doc:     "Containers of a Docker daemon.",
//			Schema:  schema.Block{ ... },
//			New: func(ctx context.Context, c Config, env plugin.Env) (discover.Discoverer, error) {
//				return &docker{socket: c.Socket, log: env.Log}, nil
//			},
//		})
//	}
//
// Serve owns the process: its standard output (the daemon's handshake; what
// anything else prints there goes to standard error), its log, its health
// answer and its end. A panic ends the process, and the daemon starts it again.
//
// It must never keep a plugin alive whose daemon is gone, never buffer without
// a bound, and never answer Health from anything but memory.
package plugin
