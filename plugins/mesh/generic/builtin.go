package main

// builtin are the sidecars known by heart. An Envoy is the proxy of several
// meshes, so its image alone says little; names, ports and labels tell whose
// it is.
func builtin() []Sidecar {
	envoy := []string{"envoyproxy/envoy", "envoyproxy/envoy-*", "envoy"}
	return []Sidecar{
		{
			Mesh: "istio", Proxy: "envoy",
			Images: []string{"istio/proxyv2", "proxyv2", "istio-release/proxyv2", "proxyv2-rhel*", "mirrored-istio-proxyv2"}, sharedImages: envoy,
			Names:   []string{"istio-proxy"},
			Ports:   []uint32{15001, 15006, 15020, 15021, 15090},
			Labels:  map[string]string{"service.istio.io/canonical-name": "*"},
			gateway: map[string]string{"istio": "*gateway", "gateway.networking.k8s.io/gateway-name": "*", "gateway.istio.io/managed": "*"},
			service: []string{"service.istio.io/canonical-name"},
		},
		{
			Mesh: "linkerd", Proxy: "linkerd-proxy",
			Images:  []string{"linkerd/proxy", "linkerd-io/proxy", "linkerd2-proxy"},
			Names:   []string{"linkerd-proxy"},
			Ports:   []uint32{4140, 4143, 4190, 4191},
			Labels:  map[string]string{"linkerd.io/control-plane-ns": "*"},
			service: []string{"linkerd.io/proxy-deployment", "linkerd.io/proxy-statefulset", "linkerd.io/proxy-daemonset"},
		},
		{
			Mesh: "consul", Proxy: "envoy",
			Images: []string{"hashicorp/consul-dataplane", "consul-dataplane", "hashicorp/consul-envoy"}, sharedImages: envoy,
			Names:   []string{"consul-dataplane", "consul-dataplane-*", "envoy-sidecar", "consul-connect-*"},
			Ports:   []uint32{20000, 20200},
			Labels:  map[string]string{"consul.hashicorp.com/connect-inject-status": "injected"},
			gateway: map[string]string{"consul.hashicorp.com/gateway-kind": "*", "component": "*-gateway"},
			service: []string{"consul.hashicorp.com/connect-service", "consul.hashicorp.com/service"},
		},
		{
			Mesh: "kuma", Proxy: "envoy",
			Images:  []string{"kumahq/kuma-dp", "kong/kuma-dp", "kuma-dp"},
			Names:   []string{"kuma-sidecar"},
			Ports:   []uint32{15001, 15006, 9901},
			Labels:  map[string]string{"kuma.io/sidecar-injected": "true"},
			gateway: map[string]string{"kuma.io/gateway": "*"},
			service: []string{"kuma.io/service"},
		},
		{
			Mesh: "osm", Proxy: "envoy",
			Images: []string{"openservicemesh/sidecar*"}, sharedImages: envoy,
			sharedNames: []string{"envoy"},
			Ports:       []uint32{15000, 15003, 15010},
			Labels:      map[string]string{"osm-proxy-uuid": "*"},
		},
		{
			Mesh: "nginx-mesh", Proxy: "nginx",
			Images: []string{"nginx-service-mesh/nginx-mesh-sidecar", "nginx/nginx-mesh-sidecar", "nginx-mesh-sidecar"},
			Names:  []string{"nginx-mesh-sidecar"},
			Ports:  []uint32{8887, 8888, 8889, 8895},
			Labels: map[string]string{"nsm.nginx.com/deployment": "*"},
		},
		{
			Mesh: "appmesh", Proxy: "envoy",
			Images: []string{"aws-appmesh-envoy", "appmesh/aws-appmesh-envoy"}, sharedImages: envoy,
			sharedNames: []string{"envoy"},
		},
		{
			Mesh: "traefik-mesh", Proxy: "traefik", node: true, ownLabels: true,
			Labels: map[string]string{"app": "maesh*", "component": "maesh-mesh"},
			Names:  []string{"traefik-mesh-proxy", "maesh-mesh"},
		},
		{
			Mesh: "dapr", Proxy: "daprd",
			Images:  []string{"daprio/daprd", "daprio/dapr", "dapr/daprd"},
			Names:   []string{"daprd"},
			Ports:   []uint32{3500, 50001, 9090},
			Labels:  map[string]string{"dapr.io/enabled": "true"},
			service: []string{"dapr.io/app-id"},
		},
	}
}
