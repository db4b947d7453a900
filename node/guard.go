package node

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/cloudbevy/bevy/client"
)

// hostOf is the name that a request is for, without a port, in small letters.
func hostOf(r *http.Request) string {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.Trim(host, "[]"))
}

// knownHost reports whether the port answers to a name. A page of a stranger
// could have its own name lead here (DNS rebinding), but none of these: they
// are of this machine, or were asked for, or are the address that was
// connected to. Names below localhost and below those that were asked for are the
// doors'.
func (n *Node) knownHost(r *http.Request) bool {
	host := hostOf(r)
	below := func(name string) bool { return strings.HasSuffix(host, "."+name) }
	return n.ownHost(r) || below("localhost") || slices.ContainsFunc(n.hosts, below)
}

// ownHost reports whether the name is the node's own: pages there are ours.
func (n *Node) ownHost(r *http.Request) bool {
	host := hostOf(r)
	if host == "localhost" || slices.Contains(n.hosts, host) {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	if ip = ip.Unmap(); ip.IsLoopback() {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && local.AddrPort().Addr().Unmap() == ip
}

// crossSite returns an error if another site's page has made the request. A
// program that is no browser says nothing of the kind, and may ask.
func crossSite(r *http.Request) error {
	switch site := r.Header.Get("Sec-Fetch-Site"); {
	case site == "same-origin", site == "none" && safe(r.Method):
		return nil
	case site == "":
		origin := r.Header.Get("Origin")
		if origin == "" {
			return nil
		}
		if u, err := url.Parse(origin); err == nil && u.Host == r.Host && u.Host != "" {
			return nil
		}
	}
	return &client.Error{Code: client.CodeDenied, Message: "the request was refused", Cause: "a page of another site has made it", Try: "use the page at this address"}
}

func safe(method string) bool { return method == http.MethodGet || method == http.MethodHead }

// errSignIn says that nobody has signed in.
func errSignIn() error {
	return &client.Error{Code: client.CodeDenied, Message: "nobody has signed in", Cause: "this needs a session, or the socket", Try: "bevy up prints a link that signs in", Status: http.StatusUnauthorized}
}

// signedIn finds the session of a request to the port.
func (n *Node) signedIn(r *http.Request, cookieOnly bool) (id string, ok bool) {
	cookie, err := r.Cookie(n.cookieName())
	if err != nil {
		return "", false
	}
	return n.sessions.find(cookie.Value, r.Header.Get(client.KeyHeader), cookieOnly)
}

// SignedIn reports whether a browser asks that has signed in. That is enough
// for a door to show something to read, at one of the node's own names, and not
// to change anything: another site's page, or another server of this machine,
// may have the browser ask.
func (n *Node) SignedIn(r *http.Request) bool {
	if BySocket(r.Context()) {
		return true
	}
	_, ok := n.signedIn(r, true)
	return ok && safe(r.Method) && n.ownHost(r) && crossSite(r) == nil
}

// guardPort lets requests to the port through that may ask the API.
func (n *Node) guardPort(r *http.Request, open bool) (caller, error) {
	if err := crossSite(r); err != nil {
		return caller{}, err
	}
	if open {
		return caller{}, nil
	}
	id, ok := n.signedIn(r, false)
	if !ok {
		return caller{}, errSignIn()
	}
	return caller{session: id}, nil
}

// guardOwner lets requests to the control socket through: who can connect to it
// is the owner. Where it is a port, a token shows that.
func (n *Node) guardOwner(r *http.Request) (caller, error) {
	if n.token != "" && (r.Header.Get("Origin") != "" || !sameSecret(r.Header.Get("Authorization"), "Bearer "+n.token)) {
		return caller{}, errSignIn()
	}
	return caller{owner: true}, nil
}

// remoteIP is where a request comes from.
func remoteIP(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.IPv6Unspecified() // a socket
	}
	return at.Addr()
}
