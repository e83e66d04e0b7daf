// Package thirdparty builds the plugins of examples/plugins as their authors would, each
// from its own module, and runs the daemon of this checkout with them.
//
// Why it exists: that a plugin needs nothing of this repository but the SDK, or, in
// another language, the protocol, is only believed of plugins that have nothing else. The
// examples own themselves; this package owns the directory that they are installed in and
// the control groups that it makes. It must never give a plugin what an operator would
// not, and never change one to make it pass.
package thirdparty
