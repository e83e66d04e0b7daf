// Package filter keeps the filters in force: those of the configuration, of samplers and
// of callers of the API, in this order. It finds the control groups that a filter by
// container, namespace, image, label or path names, and follows as they come and go; it ends what
// has a time; and it adds up what each has filtered.
//
// The kernel does the filtering: see kernel.Filters. The package never sees an event.
package filter
