package main

import (
	"os"
	"strconv"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/core/rehearsal"
	"github.com/ebpf-tracer/ebpf-tracer/core/simulation"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func TestZZ(t *testing.T) {
	for _, sc := range simulation.Scenarios() {
		s := newSampler(Config{Exponent: 0.5})
		res, err := rehearsal.Run(rehearsal.Options{Scenario: sc, Seed: zzseed(), Name: "adaptive", Sampler: func(r *protov1.Report) (*protov1.Answer, error) {
			var p *protov1.Policy
			var err error
			if r == nil {
				p, err = s.Start(t.Context())
			} else {
				p, err = s.Plan(t.Context(), r)
			}
			if err != nil {
				return nil, err
			}
			a := &protov1.Answer{ReportSequence: r.GetSequence(), Answer: &protov1.Answer_Keep{Keep: &protov1.Keep{}}}
			if p != nil {
				a.Answer = &protov1.Answer_Policy{Policy: p}
			}
			return a, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s %+v", sc.Name, *res)
	}
}

func zzseed() uint64 { n, _ := strconv.Atoi(os.Getenv("SEED")); return uint64(n) }
