// Package store keeps the files of plugins where only the daemon's user can write,
// under the hash of what they hold, so that what was hashed is what runs.
//
// Hashing a file where it lies and then running it by its path proves nothing: its
// owner can put another one there in between. So a plugin's files are opened once,
// judged by who could have written them, and copied, hashed on the way, into a
// directory that is named by all their hashes. The copies are opened and hashed
// again, and the program is handed out open: who runs that file runs what was
// hashed, whatever becomes of any path.
//
// An interpreter is not copied: it is the distribution's, and needs its libraries
// where they are. It is opened once and hashed so; its libraries are not covered.
//
// The store owns its directory and everything in it. It must never run anything,
// never write outside of its directory, and never hand out a file that it has not
// hashed itself.
package store
