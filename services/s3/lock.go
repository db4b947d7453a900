package s3

import (
	"errors"
	"net/http"
	"time"

	"github.com/cloudbevy/bevy/services/s3/objects"
)

// noLocks is what is said where locks were not switched on.
func noLocks() *Error { return badRequest("Bucket is missing Object Lock Configuration") }

// noLocksPut is noLocks for a put, as S3 says it then.
func noLocksPut() *Error { return badRequest("Bucket is missing ObjectLockConfiguration") }

// lockOf reads the lock that a new object is to have.
func (c *call) lockOf(h http.Header) (l objects.Lock, err error) {
	mode, until, hold := h.Get("X-Amz-Object-Lock-Mode"), h.Get("X-Amz-Object-Lock-Retain-Until-Date"), h.Get("X-Amz-Object-Lock-Legal-Hold")
	if mode == "" && until == "" && hold == "" {
		return l, nil
	}
	switch {
	case (mode == "") != (until == ""):
		return l, badArgument("x-amz-object-lock-mode", mode, "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied.")
	case hold != "" && hold != "ON" && hold != "OFF":
		return l, badArgument("x-amz-object-lock-legal-hold", hold, "Legal Hold must be either of 'ON' or 'OFF'")
	}
	l.Hold, l.NoHold = hold == "ON", hold == "OFF"
	if mode != "" {
		if mode != objects.Governance && mode != objects.Compliance {
			return l, badArgument("x-amz-object-lock-mode", mode, "Unknown wormMode directive.")
		}
		l.Mode = mode
		if l.Until, err = c.until(until); err != nil {
			return l, err
		}
		if err := c.maybe("PutObjectRetention"); err != nil {
			return l, err
		}
	}
	if hold != "" {
		if err := c.maybe("PutObjectLegalHold"); err != nil {
			return l, err
		}
	}
	s, err := c.b.State(c.ctx)
	if err == nil && !s.Locks {
		err = noLocksPut()
	}
	return l, err
}

// until reads the end of a lock, which has to be in the future.
func (c *call) until(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return at, badArgument("x-amz-object-lock-retain-until-date", text, "The retain until date must be provided in ISO 8601 format")
	}
	if !at.After(c.d.o.Clock.Now()) {
		return at, badArgument("x-amz-object-lock-retain-until-date", text, "The retain until date must be in the future!")
	}
	return at, nil
}

// lockConfiguration is that of a bucket.
type lockConfiguration struct {
	ObjectLockEnabled string
	Rule              *struct {
		DefaultRetention struct {
			Mode  string
			Days  *int
			Years *int
		}
	}
}

func (c *call) putLocks() error {
	var in lockConfiguration
	if err := c.xml("ObjectLockConfiguration", &in); err != nil {
		return err
	}
	if in.ObjectLockEnabled != "Enabled" {
		return fail("MalformedXML")
	}
	var mode string
	var days, years int
	if in.Rule != nil {
		r := in.Rule.DefaultRetention
		mode = r.Mode
		if mode != objects.Governance && mode != objects.Compliance || (r.Days == nil) == (r.Years == nil) {
			return fail("MalformedXML")
		}
		if r.Days != nil {
			days = *r.Days
		} else {
			years = *r.Years
		}
		if days+years < 1 {
			return failf("InvalidArgument", "Default retention period must be a positive integer value.")
		}
		if days > 36500 || years > 100 {
			return failf("InvalidArgument", "Default retention period too large.")
		}
	}
	s, err := c.b.State(c.ctx)
	if err != nil {
		return err
	}
	if s.Versioning != objects.Enabled {
		return failf("InvalidBucketState", "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration")
	}
	err = c.b.SetState(c.ctx, func(s *objects.State) { s.Locks, s.Default, s.Days, s.Years = true, mode, days, years })
	if err != nil {
		return err
	}
	return c.done(http.StatusOK)
}

func (c *call) getLocks() error {
	s, err := c.b.State(c.ctx)
	if err != nil {
		return err
	}
	if !s.Locks {
		return fail("ObjectLockConfigurationNotFoundError").with("BucketName", c.bucket)
	}
	d := newDocument("ObjectLockConfiguration")
	d.put("ObjectLockEnabled", "Enabled")
	if s.Default != "" {
		d.in("Rule")
		d.in("DefaultRetention")
		d.put("Mode", s.Default)
		if s.Days > 0 {
			d.number("Days", int64(s.Days))
		} else {
			d.number("Years", int64(s.Years))
		}
		d.out()
		d.out()
	}
	return c.reply(d)
}

// locked looks for an object of a bucket that has locks.
func (c *call) locked() (objects.Object, string, error) {
	version := c.query.Get("versionId") // which some clients send without a value
	if err := checkVersion(version); err != nil {
		return objects.Object{}, "", err
	}
	o, err := c.b.Head(c.ctx, c.key, version)
	if err != nil {
		return o, version, c.readError(o, err, version)
	}
	s, err := c.b.State(c.ctx)
	if err == nil && !s.Locks {
		err = noLocks()
	}
	return o, version, err
}

func (c *call) putRetention() error {
	body, err := c.text(maxBody)
	if err != nil {
		return err
	}
	var in struct{ Mode, RetainUntilDate string }
	if err := decode(body, "Retention", &in); err != nil {
		return err
	}
	var until time.Time
	if in.Mode != "" || in.RetainUntilDate != "" {
		if in.Mode != objects.Governance && in.Mode != objects.Compliance {
			return fail("MalformedXML")
		}
		if until, err = time.Parse(time.RFC3339Nano, in.RetainUntilDate); err != nil {
			return fail("MalformedXML")
		}
		if !until.After(c.d.o.Clock.Now()) {
			return failf("InvalidArgument", "The retain until date must be in the future!")
		}
	}
	was, version, err := c.locked()
	if err != nil {
		return err
	}
	bypass, err := c.bypass(c.key, version)
	if err != nil {
		return err
	}
	if was.Lock.Mode == objects.Governance && in.Mode != objects.Governance && was.Lock.Until.After(c.d.o.Clock.Now()) && !bypass {
		return objects.ErrLocked
	}
	o, err := c.b.SetRetention(c.ctx, c.key, version, in.Mode, until, bypass)
	if err != nil {
		return c.lockError(err, version)
	}
	c.setVersion(o.Version)
	return c.done(http.StatusOK)
}

func (c *call) lockError(err error, version string) error {
	if errors.Is(err, objects.ErrNoLock) {
		return noLocks()
	}
	return c.versionError(err, version)
}

func (c *call) getRetention() error {
	o, _, err := c.locked()
	if err != nil {
		return err
	}
	if o.Lock.Mode == "" {
		return fail("NoSuchObjectLockConfiguration")
	}
	d := newDocument("Retention")
	d.put("Mode", o.Lock.Mode)
	d.time("RetainUntilDate", o.Lock.Until)
	return c.reply(d)
}

func (c *call) putHold() error {
	body, err := c.text(maxBody)
	if err != nil {
		return err
	}
	var in struct{ Status string }
	if err := decode(body, "LegalHold", &in); err != nil {
		return err
	}
	if in.Status != "ON" && in.Status != "OFF" {
		return fail("MalformedXML")
	}
	_, version, err := c.locked()
	if err != nil {
		return err
	}
	o, err := c.b.SetHold(c.ctx, c.key, version, in.Status == "ON")
	if err != nil {
		return c.lockError(err, version)
	}
	c.setVersion(o.Version)
	return c.done(http.StatusOK)
}

func (c *call) getHold() error {
	o, _, err := c.locked()
	if err != nil {
		return err
	}
	if !o.Lock.Hold && !o.Lock.NoHold {
		return fail("NoSuchObjectLockConfiguration")
	}
	d := newDocument("LegalHold")
	d.put("Status", map[bool]string{true: "ON", false: "OFF"}[o.Lock.Hold])
	return c.reply(d)
}
