// Command adaptive is the sampler that spends a budget of events where they tell
// most: it learns how many events each class has, gives busy containers rows of their
// own, and divides the budget so that a class with a hundred times the events gets
// ten times the places. With the argument "predictive" it is the sampler predictive,
// which does the same for the load that it forecasts. It is started by the daemon,
// never by hand.
//
// From report to policy: learned is what is known of each class's load, forecaster
// what is to come of each kind and priority, divide gives each class its share, and
// sampler tells them if they are worth a new policy.
//
// It owns its idea of each class's load and nothing else; it does no I/O. That the
// budget holds between two of its plans is the kernel's part, not its own. What it
// remembers is bounded, by the constants in learned.go and season.go, to about 10 MB.
package main
