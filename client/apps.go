package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// What a node is asked about apps, and about what they keep at its doors.
type (
	// App is who data belong to; the owner's own has no name.
	App struct {
		Name    string    `json:"name"`
		Created time.Time `json:"created,omitzero"`
		Keys    int       `json:"keys"`
		Tables  int       `json:"tables"`
		Buckets int       `json:"buckets"`
	}

	// Apps are the apps of the cloud.
	Apps struct {
		Apps []App `json:"apps"`
	}

	// AddApp makes an app.
	AddApp struct {
		Name string `json:"name"`
	}

	// AppName names an app.
	AppName struct {
		Name string `path:"app" json:"-"`
	}

	// OfApp asks about an app.
	OfApp struct {
		App string `query:"app" json:"-" doc:"its name; the owner's own app when empty"`
	}

	// Right lets a key do something.
	Right struct {
		Service string `json:"service,omitempty" doc:"s3 or dynamodb; both when empty"`
		Name    string `json:"name" doc:"of buckets or tables, with * for any letters"`
		Write   bool   `json:"write,omitempty"`
	}

	// AccessKey lets programs in at the doors.
	AccessKey struct {
		ID      string    `json:"id"`
		App     string    `json:"app,omitempty"`
		Secret  string    `json:"secret,omitempty"` // only when it is made
		Rights  []Right   `json:"rights"`
		Until   time.Time `json:"until,omitzero"`
		Over    bool      `json:"over,omitempty"` // its time has passed
		Note    string    `json:"note,omitempty"`
		Created time.Time `json:"created"`
	}

	// AccessKeys are the keys of an app.
	AccessKeys struct {
		Keys []AccessKey `json:"keys"`
	}

	// AddAccessKey makes a key.
	AddAccessKey struct {
		App    string    `json:"app,omitempty"`
		Rights []Right   `json:"rights,omitempty" doc:"everything in the app when empty"`
		Until  time.Time `json:"until,omitzero" doc:"for ever when it is left out"`
		Note   string    `json:"note,omitempty"`
	}

	// AccessKeyID names a key.
	AccessKeyID struct {
		ID string `path:"key" json:"-"`
	}

	// Environment is what programs for AWS have to know to use a node instead.
	Environment struct {
		Endpoint  string `json:"endpoint"`
		Region    string `json:"region"`
		AccessKey string `json:"accessKey"`
		Secret    string `json:"secret,omitempty"`
		App       string `json:"app,omitempty"`
	}

	// EnvironmentRequest asks for it.
	EnvironmentRequest struct {
		App string `json:"app,omitempty"`
	}

	// TableCall is an operation of DynamoDB; its body is that of the operation.
	TableCall struct {
		Operation string `path:"operation" json:"-" doc:"such as PutItem"`
		App       string `query:"app" json:"-"`
	}
)

// DynamoDB asks the node's tables something, as their owner: in and out are those
// of an operation such as "PutItem".
func (c *Client) DynamoDB(ctx context.Context, app, operation string, in, out any) error {
	return c.Do(ctx, http.MethodPost, "/dynamodb/"+url.PathEscape(operation)+"?app="+url.QueryEscape(app), in, out)
}

// What a node is asked about buckets.
type (
	// Bucket is a folder that programs for S3 see.
	Bucket struct {
		Name    string    `json:"name"`
		Files   int       `json:"files"`
		Bytes   int64     `json:"bytes"`
		Created time.Time `json:"created,omitzero"` // not of folders that were made otherwise
	}

	// Buckets are those of an app.
	Buckets struct {
		Buckets []Bucket `json:"buckets"`
	}
)
