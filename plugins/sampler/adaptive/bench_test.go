package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sampling"
)

const benchClasses = 4096

// benchReports are of classes of groups, the load of which changes by chance from
// report to report, and each time by a factor where it moves. The first report tells of
// them as pooled, the others of their rows.
func benchReports(moves float64) []*protov1.Report {
	random := rand.New(rand.NewPCG(1, 1))
	reports := make([]*protov1.Report, 8)
	for i := range reports {
		r := &protov1.Report{IntervalNano: int64(250 * time.Millisecond), RowCapacity: benchClasses, BudgetEventsPerSecond: 10_000}
		for c := range benchClasses {
			mean := 25_000 / float64(c+1)
			if (c+i)%2 == 0 {
				mean *= moves
			}
			load := &protov1.ClassLoad{
				Class: &protov1.Class{Kind: "file.open", Priority: "debug", Group: fmt.Sprintf("container/%d", c)},
				Seen:  uint64(max(mean+random.NormFloat64()*math.Sqrt(mean), 0)), Kept: 1,
			}
			if i == 0 {
				r.PooledClasses = append(r.PooledClasses, load)
			} else {
				r.Classes = append(r.Classes, load)
			}
		}
		reports[i] = r
	}
	return reports
}

func benchmark(b *testing.B, s sampling.Sampler, reports []*protov1.Report) {
	if _, err := s.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	policies := 0
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p, err := s.Plan(b.Context(), reports[i%len(reports)])
		if err != nil {
			b.Fatal(err)
		}
		if p != nil {
			policies++
		}
	}
	b.ReportMetric(float64(policies)/float64(b.N), "policies/op")
}

// BenchmarkPlan is a report of 4,096 classes heard and answered, if it can be with nil.
func BenchmarkPlan(b *testing.B) {
	benchmark(b, newSampler(Config{Exponent: 0.5}), benchReports(1))
}

// BenchmarkPolicy is one that each time needs a policy of as many rules.
func BenchmarkPolicy(b *testing.B) {
	benchmark(b, newSampler(Config{Exponent: 0.5}), benchReports(2))
}

// BenchmarkPredictive is BenchmarkPlan with a forecast.
func BenchmarkPredictive(b *testing.B) {
	benchmark(b, newPredictive(Config{Exponent: 0.5, Interval: defaultInterval, Season: time.Hour}), benchReports(1))
}

// BenchmarkBands is BenchmarkPlan with bands.
func BenchmarkBands(b *testing.B) {
	benchmark(b, newSampler(Config{Exponent: 0.5, Bands: true}), benchReports(1))
}
