package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// BenchmarkPlan is a plan of 4,096 classes of groups, the load of which changes by
// chance from report to report.
func BenchmarkPlan(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 1))
	reports := make([]*protov1.Report, 8)
	for i := range reports {
		r := &protov1.Report{IntervalNano: int64(250 * time.Millisecond), RowCapacity: 4096, BudgetEventsPerSecond: 10_000}
		for c := range 4096 {
			mean := 25_000 / float64(c+1)
			r.Classes = append(r.Classes, &protov1.ClassLoad{
				Class: &protov1.Class{Kind: "file.open", Priority: "debug", Group: fmt.Sprintf("container/%d", c)},
				Seen:  uint64(max(mean+random.NormFloat64()*math.Sqrt(mean), 0)),
			})
			r.PooledClasses = append(r.PooledClasses, &protov1.ClassLoad{
				Class: &protov1.Class{Kind: "process.exec", Priority: "info", Group: fmt.Sprintf("container/%d", c)},
				Seen:  uint64(random.IntN(4)), Kept: 1,
			})
		}
		if i > 0 {
			r.PooledClasses = nil
		}
		reports[i] = r
	}
	s := newSampler(Config{Exponent: 0.5})
	if _, err := s.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := s.Plan(b.Context(), reports[i%len(reports)]); err != nil {
			b.Fatal(err)
		}
	}
}
