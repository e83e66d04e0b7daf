// Package pluginhost finds plugins, runs them as processes of their own and
// keeps them running.
//
// It exists so that the rest of the daemon sees a plugin as calls and callbacks
// and never as a process: a Catalog finds binaries, a Host starts, watches and
// ends them, and a Discoverer, a Detector or a Sampler is one plugin under
// supervision, whatever happens to its process.
//
// The Host owns every process, socket directory and control group that it makes.
// What a plugin tells belongs to whoever the callback hands it to.
//
// It must never let a plugin's failure become the daemon's: no call of another
// stage waits for a plugin, every queue is bounded and counted, every wait for a
// process has an end, and no plugin outlives the daemon. Nothing of go-plugin
// shows outside this package.
package pluginhost
