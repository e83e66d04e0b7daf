package config

import (
	"bytes"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// The parser and the evaluator recurse with every level of nesting and every
// operator, about 5 kB of stack each, and a stack that overflows ends the
// process. A configuration is far from these bounds.
const (
	maxFile      = 1 << 20 // bytes
	maxDepth     = 200     // of brackets
	maxOperators = 5000    // in a file
	maxTemplate  = 4 << 10 // bytes of a JSON string with an expression in it
)

// bounded refuses a file that could exhaust the parser.
func bounded(src *source, text []byte) *hcl.Diagnostic {
	start := hcl.Range{Filename: src.name, Start: hcl.InitialPos, End: hcl.InitialPos}
	switch {
	case len(text) > maxFile:
		return errorAt(start, "Configuration too large", "The file has %d bytes; at most %d are read.", len(text), maxFile)
	case src.json:
		return boundedJSON(start, text)
	}
	return boundedNative(src.name, text)
}

func boundedNative(name string, text []byte) *hcl.Diagnostic {
	tokens, _ := hclsyntax.LexConfig(text, name, hcl.InitialPos)
	depth, operators := 0, 0
	last := hclsyntax.TokenNil
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrack:
			if last == hclsyntax.TokenCBrack || last == hclsyntax.TokenCParen || last == hclsyntax.TokenIdent {
				operators++ // an index
			}
			depth++
		case hclsyntax.TokenOBrace, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd:
			depth = max(depth-1, 0)
		case hclsyntax.TokenMinus, hclsyntax.TokenBang, hclsyntax.TokenQuestion, hclsyntax.TokenPlus, hclsyntax.TokenStar,
			hclsyntax.TokenSlash, hclsyntax.TokenPercent, hclsyntax.TokenAnd, hclsyntax.TokenOr, hclsyntax.TokenDot,
			hclsyntax.TokenEqualOp, hclsyntax.TokenNotEqual, hclsyntax.TokenLessThan, hclsyntax.TokenLessThanEq,
			hclsyntax.TokenGreaterThan, hclsyntax.TokenGreaterThanEq:
			operators++
		}
		last = t.Type
		if depth > maxDepth {
			return tooDeep(t.Range)
		}
		if operators > maxOperators {
			return errorAt(t.Range, "Configuration too complex", "A configuration may hold at most %d operators.", maxOperators)
		}
	}
	return nil
}

func boundedJSON(start hcl.Range, text []byte) *hcl.Diagnostic {
	depth, opened, inText := 0, 0, false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case inText && c == '\\':
			i++
		case c == '"':
			if inText {
				t := text[opened:i]
				if len(t) > maxTemplate && (bytes.Contains(t, []byte("${")) || bytes.Contains(t, []byte("%{"))) {
					return errorAt(start, "Configuration too complex", "A text with an expression in it may have at most %d bytes.", maxTemplate)
				}
			}
			inText, opened = !inText, i
		case inText:
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			depth = max(depth-1, 0)
		}
		if depth > maxDepth {
			return tooDeep(start)
		}
	}
	return nil
}

func tooDeep(at hcl.Range) *hcl.Diagnostic {
	return errorAt(at, "Configuration too complex", "Brackets may be nested at most %d deep.", maxDepth)
}
