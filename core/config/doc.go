// Package config turns an operator's file, HCL or its JSON form, into the
// typed configuration of the daemon, and every mistake in it into a sentence at
// file:line:col.
//
// It exists so that the rest of the daemon never sees HCL: stages are handed
// plain structs, plugins are handed JSON, and what a plugin objects to comes
// back as a path that is shown here at the exact value.
//
// A configuration is checked in steps, and each reports all it finds:
//
//  1. Parse reads the file, checks everything that is the core's and says
//     which plugins are named.
//  2. File.DecodePlugins checks each plugin's block against the schema that
//     the plugin advertises. Together with step 1 this is phase 1: nothing has
//     been started.
//  3. PluginConfig.Diagnostics places what a plugin itself finds wrong
//     (phase 2, only if phase 1 is clean).
//
// The core's own blocks are described by the same sdk/schema types as a
// plugin's, and go through the same code, so that one rule has one wording.
//
// It never does I/O apart from ReadFile reading the file it is given, env() looking
// up the variables that the file names, and hostname(). It never prints the
// value of an attribute that its schema calls sensitive, nor a value that came
// from the environment.
//
// Nothing here is safe for concurrent use except what is read-only after Parse:
// Config and Diagnostics.
package config
