// Command adaptive is the sampler that spends a budget of events where they tell
// most: it learns how many events each class has, gives busy containers rows of their
// own, and divides the budget so that a class with a hundred times the events gets
// ten times the places. It is started by the daemon, never by hand.
//
// It owns its idea of each class's load and nothing else; it does no I/O. That the
// budget holds between two of its plans is the kernel's part, not its own.
package main
