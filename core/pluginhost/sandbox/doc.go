// Package sandbox confines a plugin's process: it is the program that runs
// between fork and exec.
//
// A plugin is somebody else's code beside a daemon that is root. The daemon
// therefore never starts a plugin itself: it starts its own binary again, which
// gives up every right that the plugin was not granted, tells what it could and
// could not do, and then becomes the plugin. What is given up can't be had back.
//
// The package is small and apart so that it can be reviewed alone. It owns no
// state. The host's side (Rights, Prepare) only reads; the child's side (Main)
// runs on one locked thread in a process of its own. It must never run a plugin
// with more than its rights: a step that the kernel can't take is told, a step
// that fails for another reason ends the process before it becomes the plugin.
package sandbox
