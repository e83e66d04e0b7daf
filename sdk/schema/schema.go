// Package schema describes how a plugin is configured: attributes, nested
// blocks, defaults and checks. The daemon checks and converts an operator's HCL
// against it before the plugin hears of it, and documents are generated from
// it. It is a description only: decoding HCL is the daemon's.
package schema

// Type of an attribute's value, or of its elements.
type Type int

const (
	String   Type = iota + 1
	Number        // a float64
	Integer       // an int64
	Bool          //
	Duration      // "500ms" in HCL; nanoseconds in the configuration
	Size          // "64MiB" in HCL; bytes in the configuration
)

// Shape of an attribute.
type Shape int

const (
	Single Shape = iota
	List         // of Type
	Map          // from string to Type
)

// Block is the schema of a body.
type Block struct {
	Doc        string // one paragraph
	Attributes []Attribute
	Blocks     []NestedBlock
}

// NestedBlock is a block that may stand in a body, once or repeatedly.
// In the configuration it is always an array under Name.
type NestedBlock struct {
	Name     string
	Block    Block
	MinItems int
	MaxItems int // 0: no limit
}

// Attribute is one argument.
type Attribute struct {
	Name     string
	Type     Type
	Shape    Shape
	Required bool
	// Default is used when the argument is left out: a value of the Go type
	// that encoding/json would write as the configuration wants it
	// (time.Duration, int64, float64, string, bool, a slice or a map of them).
	// nil: none, and the key is then absent. It must fit the schema itself, and
	// is not for what is Required.
	Default    any
	Doc        string
	Sensitive  bool     // never printed
	Deprecated string   // what to use instead
	Enum       []string // of a string: those allowed
	Min, Max   *float64 // of what counts: inclusive, in the unit of the configuration
	Pattern    string   // of a string: RE2 that it must match as a whole
	// Opens says what the value names that the plugin will use; for strings
	// only. The daemon lets the plugin use what the operator wrote here; a
	// Default gives no rights, the manifest does. Of a list or a map every
	// element is opened; empty text opens nothing. The daemon refuses a path
	// that is not absolute.
	Opens Opens
}

// Opens is what an attribute's value names.
type Opens int

const (
	Nothing Opens = iota
	Socket        // a unix socket: a path, or unix://path; another scheme, as tcp://, is an address
	Path          // a file or directory that it reads
	Network       // an address elsewhere: the plugin may use the network
)
