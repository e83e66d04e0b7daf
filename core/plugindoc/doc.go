// Package plugindoc writes down what a plugin says of itself: its manifest and the
// schema of its configuration, as text for a terminal, Markdown for the documents,
// JSON for programs and HCL to begin a configuration with.
//
// It exists so that a plugin's documents can't differ from what the daemon checks:
// both come from the same schema. It holds no data, does no I/O but writing to what
// it is given, and must never show the default of an argument that is sensitive.
package plugindoc
