package inventory

import protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"

// service is a service as its sources describe it.
type service struct {
	facets map[string]told[*protov1.Service] // by source
}

func (i *Inventory) describeService(source string, generation uint64, d *protov1.Service) {
	if d.GetUid() == "" {
		return
	}
	s := i.services[d.GetUid()]
	if s == nil {
		if len(i.services) >= most {
			i.stats.Refused++
			return
		}
		s = &service{facets: map[string]told[*protov1.Service]{}}
		i.services[d.GetUid()] = s
	}
	s.facets[source] = told[*protov1.Service]{d, generation}
	i.tell(i.serviceChange(d.GetUid()))
}

func (i *Inventory) forgetService(source, uid string) {
	s := i.services[uid]
	if s == nil {
		return
	}
	if _, ok := s.facets[source]; !ok {
		return
	}
	delete(s.facets, source)
	if len(s.facets) == 0 {
		delete(i.services, uid)
	}
	i.tell(i.serviceChange(uid))
}
