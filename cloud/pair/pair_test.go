package pair

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/cloud/words"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// A home is the cloud that devices join.
type home struct {
	t      *testing.T
	owner  identity.Owner
	attic  noise.KeyPair // a device of it, which invites
	chain  []identity.Certificate
	admits atomic.Int32
}

func newHome(t *testing.T) *home {
	h := &home{t: t, owner: identity.NewOwner(identity.Seed{1}), attic: identity.Seed{2}.KeyPair()}
	h.chain = []identity.Certificate{h.certify(h.owner.KeyPair(), h.attic.Public, "attic")}
	return h
}

func (h *home) certify(issuer noise.KeyPair, device identity.Key, name string) identity.Certificate {
	c, err := identity.Certificate{Cloud: h.owner.Cloud(), Device: device, Name: name, Issued: time.UnixMilli(1), Admits: true}.Sign(issuer)
	if err != nil {
		h.t.Error(err)
	}
	return c
}

func (h *home) admit(_ context.Context, r Request) (Admission, error) {
	h.admits.Add(1)
	return Admission{append(h.chain[:1:1], h.certify(h.attic, r.Device, r.Name)), []byte("the cloud's key")}, nil
}

func (h *home) invite(o InviteOptions) *Invitation {
	if o.Admit == nil {
		o.Admit = h.admit
	}
	v, err := NewInvitation(o)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { v.Close() })
	return v
}

func code(t *testing.T, text string) words.Code {
	c, err := words.ParseCode(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newJoiner(t *testing.T, o JoinOptions) *Joiner {
	if o.Name == "" {
		o.Name = "laptop"
	}
	if !o.Device.CanProve() {
		o.Device = identity.Seed{3}.KeyPair()
	}
	j, err := NewJoiner(o)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// streams returns both ends of a connection between random keys.
func streams(t testing.TB, a, b io.ReadWriteCloser) (client, server *secretstream.Stream, err error) {
	t.Helper()
	open := func(f func(context.Context, io.ReadWriteCloser, secretstream.Options) (*secretstream.Stream, error), conn io.ReadWriteCloser) (*secretstream.Stream, error) {
		keys, err := noise.GenerateKeyPair(rand.Reader)
		if err != nil {
			return nil, err
		}
		return f(t.Context(), conn, secretstream.Options{KeyPair: keys})
	}
	var both sync.WaitGroup
	var err1, err2 error
	both.Go(func() { client, err1 = open(secretstream.Client, a) })
	both.Go(func() { server, err2 = open(secretstream.Server, b) })
	both.Wait()
	if err := errors.Join(err1, err2); err != nil {
		a.Close()
		b.Close()
		return nil, nil, err
	}
	return client, server, nil
}

// meet lets a joiner try on a new connection to an invitation.
func meet(t *testing.T, v *Invitation, j *Joiner) (Admission, error) {
	t.Helper()
	a, b := transport.Pipe()
	client, server, err := streams(t, a, b)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { v.Serve(t.Context(), server) })
	defer serving.Wait()
	return j.Join(t.Context(), client)
}

func TestDeviceJoinsByWords(t *testing.T) {
	h := newHome(t)
	v := h.invite(InviteOptions{})
	typed := code(t, v.Code().Words())
	kept := Admission{}
	j := newJoiner(t, JoinOptions{Code: typed, Name: "cellar", Keep: func(a Admission) error { kept = a; return nil }})
	a, err := meet(t, v, j)
	if err != nil {
		t.Fatal(err)
	}
	if string(a.Payload) != "the cloud's key" || a.Cloud() != h.owner.Cloud() || !bytes.Equal(kept.Payload, a.Payload) {
		t.Errorf("got %+v, kept %+v", a, kept)
	}
	roster := identity.NewRoster(h.owner.Cloud())
	for _, c := range a.Chain {
		if err := roster.Admit(c); err != nil {
			t.Error(err)
		}
	}
	if d, _ := roster.Device(j.o.Device.Public); d.Status != identity.In || d.Name != "cellar" {
		t.Errorf("the roster says %+v", d)
	}
	r, err := v.Wait(t.Context())
	if err != nil || r != (Request{j.o.Device.Public, "cellar"}) {
		t.Errorf("invitation ended with %v, %v", r, err)
	}
	if _, err := meet(t, v, newJoiner(t, JoinOptions{Code: typed})); !errors.Is(err, ErrUsed) {
		t.Errorf("words used twice: %v", err)
	}
}

func TestWrongWordsEndTheCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		v := h.invite(InviteOptions{Code: code(t, "stone river amount name salon frog")})
		wrong := newJoiner(t, JoinOptions{Code: code(t, "stone river amount name salon fog")})
		for n := range Tries {
			if _, err := meet(t, v, wrong); !errors.Is(err, ErrWords) {
				t.Fatalf("try %d: %v", n, err)
			}
			if got := v.TriesLeft(); got != Tries-1-n {
				t.Fatalf("%d tries left after %d", got, n+1)
			}
			// Even the right words have to wait now.
			if n < Tries-1 {
				if _, err := meet(t, v, newJoiner(t, JoinOptions{Code: v.Code()})); !errors.Is(err, ErrBusy) {
					t.Fatalf("at once after wrong words: %v", err)
				}
			}
			time.Sleep(pause << n)
		}
		if _, err := meet(t, v, newJoiner(t, JoinOptions{Code: v.Code()})); !errors.Is(err, ErrTries) {
			t.Errorf("the right words after too many wrong ones: %v", err)
		}
		if _, err := v.Wait(t.Context()); !errors.Is(err, ErrTries) {
			t.Errorf("the invitation ended with %v", err)
		}
		if h.admits.Load() != 0 {
			t.Error("somebody was admitted")
		}
	})
}
