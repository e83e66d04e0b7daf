package config

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// functionsDoc ends every complaint about a function.
const functionsDoc = `The functions are env("NAME"), env("NAME", "default") and hostname().`

// environment is what an expression may ask of the outside.
type environment struct {
	lookup   func(string) (string, bool)
	hostname func() (string, error)

	// used is set by env: what it gives is text and may stand for a number.
	// secret is set when that text came from a variable: it is not shown.
	used, secret bool
}

// context holds the functions of a configuration; there are no variables.
func (e *environment) context() *hcl.EvalContext {
	return &hcl.EvalContext{Functions: map[string]function.Function{
		"env":      e.env(),
		"hostname": e.host(),
	}}
}

func (e *environment) env() function.Function {
	return function.New(&function.Spec{
		Description: "the value of an environment variable, or the default where it is not set",
		Params:      []function.Parameter{{Name: "name", Type: cty.String}},
		VarParam:    &function.Parameter{Name: "default", Type: cty.String},
		Type:        function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if len(args) > 2 {
				return cty.NilVal, function.NewArgErrorf(2, "env takes a name and at most one default")
			}
			name := args[0].AsString()
			e.used = true
			if value, ok := e.lookup(name); ok {
				e.secret = true
				return cty.StringVal(value), nil
			}
			if len(args) == 1 {
				return cty.NilVal, function.NewArgErrorf(0, "the environment variable %q is not set; set it, or give a default: env(%q, \"...\")", name, name)
			}
			return args[1], nil
		},
	})
}

func (e *environment) host() function.Function {
	return function.New(&function.Spec{
		Description: "the host's name",
		Type:        function.StaticReturnType(cty.String),
		Impl: func([]cty.Value, cty.Type) (cty.Value, error) {
			name, err := e.hostname()
			if err != nil {
				return cty.NilVal, err
			}
			return cty.StringVal(name), nil
		},
	})
}

// explainCall says of a wrong call which are right.
func explainCall(d *hcl.Diagnostic) *hcl.Diagnostic {
	switch d.Summary {
	case "Call to unknown function", "Too many function arguments", "Not enough function arguments":
		d.Detail += " " + functionsDoc
	case "Invalid function argument":
		for _, parameter := range []string{"name", "default"} {
			d.Detail = strings.TrimPrefix(d.Detail, fmt.Sprintf("Invalid value for %q parameter: ", parameter))
		}
	}
	return d
}
