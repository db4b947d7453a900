package packet

// Remembers returns how many mappings a NAT has, and remote addresses in them.
func (r *SimNAT) Remembers() int {
	r.sim.mu.Lock()
	defer r.sim.mu.Unlock()
	n := len(r.out)
	for _, m := range r.out {
		n += len(m.remotes)
	}
	return n
}

// Zones are the interfaces that were looked up.
var Zones = &zones
