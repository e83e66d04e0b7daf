// Package scaffold makes the beginning of a plugin: a Go module that builds, passes
// its own tests and runs under the daemon at once.
//
// It exists so that an author begins with something that works and changes it, and
// not with the contract. Its templates are the plugins that new authors learn from:
// each is small, keeps the whole contract and is tested as any author's is.
//
// It owns nothing. It must never write into a directory that it did not make, and
// never leave half of one behind.
package scaffold
