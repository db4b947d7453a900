package identity_test

import (
	"fmt"
	"time"

	"github.com/cloudbevy/bevy/cloud/identity"
)

func Example() {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	owner := identity.NewOwner(identity.Seed{1}) // of random bytes, in earnest
	attic := identity.Seed{2}.KeyPair()
	friend := identity.Seed{3}.KeyPair()

	// The owner admits a device.
	roster := identity.NewRoster(owner.Cloud())
	cert, err := identity.Certificate{Cloud: owner.Cloud(), Device: attic.Public, Name: "attic", Issued: now, Admits: true}.Sign(owner.KeyPair())
	if err != nil {
		fmt.Println(err)
	}
	fmt.Println(roster.Admit(cert), roster.Has(attic.Public))

	// The device lets a friend read some photos for a week.
	grant, err := identity.NewGrant(attic, identity.Capability{
		Cloud: owner.Cloud(), Kind: identity.Folder, Resource: "photos", Prefix: "/2026",
		Actions: identity.Read, Until: now.AddDate(0, 0, 7), Holder: friend.Public,
	})
	if err != nil {
		fmt.Println(err)
	}
	challenge := []byte("the hash of a handshake")
	rights, err := grant.Authorize(identity.Rules{Roster: roster, Now: now}, challenge, grant.Prove(friend, challenge))
	fmt.Println(err, rights.Allows(identity.Folder, "photos", "/2026/a.jpg", identity.Read))

	// The device is lost.
	lost, err := identity.Revocation{Cloud: owner.Cloud(), Device: attic.Public, Time: now}.Sign(owner.KeyPair())
	if err != nil {
		fmt.Println(err)
	}
	fmt.Println(roster.Revoke(lost), roster.Has(attic.Public))
	_, err = grant.Verify(identity.Rules{Roster: roster, Now: now})
	fmt.Println(err != nil)
	// Output:
	// <nil> true
	// <nil> true
	// <nil> false
	// true
}
