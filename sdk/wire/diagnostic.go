package wire

import (
	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// DiagnosticsToProto writes diagnostics as messages.
func DiagnosticsToProto(ds diag.Diagnostics) []*protov1.Diagnostic {
	out := make([]*protov1.Diagnostic, 0, len(ds))
	for _, d := range ds {
		p := &protov1.Diagnostic{
			Severity: protov1.Diagnostic_SEVERITY_ERROR,
			Summary:  d.Summary,
			Detail:   d.Detail,
		}
		if d.Severity == diag.Warning {
			p.Severity = protov1.Diagnostic_SEVERITY_WARNING
		}
		for _, s := range d.Path {
			p.Path = append(p.Path, stepToProto(s))
		}
		out = append(out, p)
	}
	return out
}

func stepToProto(s diag.Step) *protov1.PathStep {
	switch s := s.(type) {
	case diag.Attr:
		return &protov1.PathStep{Step: &protov1.PathStep_Attribute{Attribute: string(s)}}
	case diag.Index:
		return &protov1.PathStep{Step: &protov1.PathStep_Index{Index: int64(s)}}
	case diag.Key:
		return &protov1.PathStep{Step: &protov1.PathStep_Key{Key: string(s)}}
	}
	return &protov1.PathStep{}
}

// DiagnosticsFromProto reads diagnostics. What is not known is taken for the
// worse: a severity without a name is an error, and a path ends before a step
// of an unknown sort.
func DiagnosticsFromProto(ps []*protov1.Diagnostic) diag.Diagnostics {
	var out diag.Diagnostics
	for _, p := range ps {
		d := diag.Diagnostic{Severity: diag.Error, Summary: p.GetSummary(), Detail: p.GetDetail()}
		if p.GetSeverity() == protov1.Diagnostic_SEVERITY_WARNING {
			d.Severity = diag.Warning
		}
	path:
		for _, s := range p.GetPath() {
			switch s := s.GetStep().(type) {
			case *protov1.PathStep_Attribute:
				d.Path = append(d.Path, diag.Attr(s.Attribute))
			case *protov1.PathStep_Index:
				d.Path = append(d.Path, diag.Index(s.Index))
			case *protov1.PathStep_Key:
				d.Path = append(d.Path, diag.Key(s.Key))
			default:
				break path
			}
		}
		out = append(out, d)
	}
	return out
}
