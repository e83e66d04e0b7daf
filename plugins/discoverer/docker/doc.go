// Command docker is the discoverer of Docker's containers and, as discoverer podman, of
// Podman's through its compatible service. It is started by the daemon, never by hand.
//
// It exists so that the core knows no runtime. It owns what was last said of
// each container, which it needs to say the next change whole; the engine owns
// the truth. It only ever reads: it must never change anything in the engine,
// hold up an event for an inspect, or put an older answer over a newer event.
package main
