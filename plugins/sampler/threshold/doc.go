// Command threshold is the sampler that reads its rate off a table: the more
// events a second, the smaller the share that is kept. With the argument
// "fixed" it is the sampler fixed, which has one rate. It is started by the
// daemon, never by hand.
//
// It exists as the plain choice: an operator can say from the load alone what it
// will answer. It owns its idea of the load and nothing else; it does no I/O and
// must never answer with less than certainty for a critical event.
package main
