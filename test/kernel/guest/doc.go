// Command guest proves on the kernel that it runs on that every probe loads,
// attaches and tells the truth: it loads them through core/kernel, does things
// whose outcome it knows, decodes what comes out of the rings with core/pipeline
// and compares the two, then detaches and adds the ledger up. It prints a report
// and exits with 1 when anything is missing or wrong.
//
// It is static and needs nothing beside it, so that it can be put into a virtual
// machine with an old kernel. What it traces are children of its own, started
// from the same executable as `guest work NAME ARG...`; the tracer leaves its own
// process out.
//
// Then it makes a container of control groups, has children use its resources, and
// compares what core/resource and the accounting of traffic tell with what they used.
//
// With -plugins it then runs the hostile plugin of test/sandbox and proves that here
// too it is confined and bounded, by control groups of the default hierarchy.
//
// With -functions it must be exactly those programs that tell a system call by its function.
//
// As `guest cost OPENLOAD` it says what opens and other calls take, untraced and told by
// either sort of program.
//
// With -partial it is told of a kernel that can't take everything: programs that
// don't load are listed and what they would have told is not asked for. With
// -want it must be exactly those that are missing.
package main
