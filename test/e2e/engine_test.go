package e2e

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
)

// engineStats are what docker itself says that a container uses, as docker stats shows
// it rounded.
type engineStats struct {
	CPU struct {
		Usage struct {
			Total  uint64 `json:"total_usage"`
			User   uint64 `json:"usage_in_usermode"`
			Kernel uint64 `json:"usage_in_kernelmode"`
		} `json:"cpu_usage"`
		Throttling struct {
			Periods   uint64 `json:"periods"`
			Throttled uint64 `json:"throttled_periods"`
			Time      uint64 `json:"throttled_time"`
		} `json:"throttling_data"`
	} `json:"cpu_stats"`
	Memory struct {
		Usage uint64            `json:"usage"`
		Max   uint64            `json:"max_usage"`
		Limit uint64            `json:"limit"`
		Stats map[string]uint64 `json:"stats"`
	} `json:"memory_stats"`
	Pids struct{ Current, Limit uint64 } `json:"pids_stats"`
	IO   struct {
		Bytes []engineIO `json:"io_service_bytes_recursive"`
		Ops   []engineIO `json:"io_serviced_recursive"`
	} `json:"blkio_stats"`
}

type engineIO struct {
	Op    string `json:"op"`
	Value uint64 `json:"value"`
}

func ioOf(all []engineIO, op string) (sum uint64) {
	for _, one := range all {
		if strings.EqualFold(one.Op, op) {
			sum += one.Value
		}
	}
	return sum
}

// workingSet is the arithmetic of cAdvisor and the kubelet.
func (s *engineStats) workingSet() uint64 {
	inactive, v1 := s.Memory.Stats["total_inactive_file"]
	if !v1 {
		inactive = s.Memory.Stats["inactive_file"]
	}
	return s.Memory.Usage - min(s.Memory.Usage, inactive)
}

func dockerStats(t *testing.T, d *env.Docker, id string) (s engineStats) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.Socket)
	}}}
	defer client.CloseIdleConnections()
	answer, err := client.Get("http://docker/v1.41/containers/" + id + "/stats?stream=false&one-shot=true")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s
}
