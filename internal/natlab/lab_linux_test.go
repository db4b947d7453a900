package natlab

import (
	"errors"
	"testing"
)

// newLab is a lab that ends with the test.
func newLab(t *testing.T) *Lab {
	t.Helper()
	if err := Check(); err != nil {
		t.Skip(err)
	}
	lab, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// prober is a Prober on the lab's internet.
func prober(t *testing.T, lab *Lab) *Prober {
	t.Helper()
	addrs := Internet("9.9.0.1", "9.9.0.2")
	h := must(lab.Host("prober", addrs...))(t)
	var p *Prober
	err := h.Do(func() (err error) {
		p, err = NewProber(addrs[0], addrs[1])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func probe(h *Host, p *Prober) (found Probe, err error) {
	err = h.Do(func() (err error) {
		found, err = p.Probe()
		return err
	})
	return found, err
}

func TestSitesAreOfTheirKind(t *testing.T) {
	lab := newLab(t)
	p := prober(t, lab)
	for _, kind := range Kinds {
		h := must(must(lab.Site(string(kind), kind))(t).Host("host"))(t)
		want := map[Kind]string{
			Open:           "mapping EI, filtering EI, port kept",
			FullCone:       "mapping EI, filtering EI, port kept",
			Restricted:     "mapping EI, filtering AD, port kept",
			PortRestricted: "mapping EI, filtering APD, port kept",
			Symmetric:      "mapping APD, filtering APD, port changed",
			Double:         "mapping EI, filtering APD, port kept",
			Carrier:        "mapping EI, filtering APD, port kept",
			CarrierHairpin: "mapping EI, filtering APD, port kept",
		}[kind]
		t.Run(string(kind), func(t *testing.T) {
			found, err := probe(h, p)
			if want == "" {
				if !errors.Is(err, errBlocked) {
					t.Errorf("got %v, %v, want no UDP", found, err)
				}
				return
			}
			if err != nil || found.String() != want {
				t.Errorf("got %v, %v, want %s", found, err, want)
			}
		})
	}
}
