package client

import "time"

// What a node is asked about backups.
type (
	// Backup is a place that the cloud is backed up to.
	Backup struct {
		ID       string        `json:"id"`
		Address  string        `json:"address" doc:"s3://bucket/prefix, or the path of a folder"`
		Endpoint string        `json:"endpoint,omitempty" doc:"the S3 server"`
		Region   string        `json:"region,omitempty"`
		Machine  string        `json:"machine"` // that makes it
		Here     bool          `json:"here"`    // it is this one
		Every    time.Duration `json:"every"`   // nanoseconds; 0 is when it is asked for
		Created  time.Time     `json:"created"`
		Last     time.Time     `json:"last,omitzero"` // when this machine made it last
		Snapshot string        `json:"snapshot,omitempty"`
		Error    string        `json:"error,omitempty"` // why it can't since then
		Running  bool          `json:"running,omitempty"`
		Only     bool          `json:"only,omitempty"` // something was freed that may be nowhere else
	}

	// Backups are all of them.
	Backups struct {
		Backups []Backup `json:"backups"`
	}

	// BackupPlace says where a backup is.
	BackupPlace struct {
		Address   string `json:"address" doc:"s3://bucket/prefix, or the absolute path of a folder"`
		Endpoint  string `json:"endpoint,omitempty"`
		Region    string `json:"region,omitempty"`
		AccessKey string `json:"accessKey,omitempty"`
		Secret    string `json:"secret,omitempty"`
	}

	// AddBackup begins one, or goes on with one of the same cloud.
	AddBackup struct {
		Place BackupPlace   `json:"place"`
		Every time.Duration `json:"every,omitempty"`
	}

	// DropBackup ends one.
	DropBackup struct {
		ID string `path:"backup" json:"-"`
		// Anyway is also when it may be the only place of something.
		Anyway bool `query:"anyway" json:"-"`
	}

	// BackupName names one.
	BackupName struct {
		ID string `path:"backup" json:"-"`
	}

	// BackedUp is what a run did.
	BackedUp struct {
		Snapshot string `json:"snapshot"`
		New      bool   `json:"new"`
		Blocks   uint64 `json:"blocks"`
		Bytes    int64  `json:"bytes"` // that were sent
		// Missing blocks are not on this machine and not in the backup.
		Missing uint64 `json:"missing,omitempty"`
		// Copied are those of Blocks that came from another backup.
		Copied uint64 `json:"copied,omitempty"`
		// MissingFiles are how many files, as they are now, are not whole in the backup,
		// MissingNames the first 100 of them.
		MissingFiles int      `json:"missingFiles,omitempty"`
		MissingNames []string `json:"missingNames,omitempty"`
		// Away is why other backups, which may have what is missing, could not be read.
		Away []string `json:"away,omitempty"`
		// Behind is how many logs of this machine the backup has more of, or something
		// else: the machine was put back to an earlier state.
		Behind int `json:"behind,omitempty"`
	}

	// BackupSnapshot is one state of the cloud in a backup.
	BackupSnapshot struct {
		Name    string    `json:"name"`
		Time    time.Time `json:"time"`
		Machine string    `json:"machine"`
		Logs    int       `json:"logs"`
		Bytes   int64     `json:"bytes"` // of all that it needs
	}

	// BackupSnapshots are those of a backup, the oldest first.
	BackupSnapshots struct {
		Snapshots []BackupSnapshot `json:"snapshots"`
	}

	// CheckBackup looks whether a backup is whole.
	CheckBackup struct {
		ID   string `path:"backup" json:"-"`
		Read bool   `json:"read,omitempty" doc:"also bring all and prove it"`
		// Restore is also to restore all to a place of its own, and read all files.
		Restore bool `json:"restore,omitempty"`
	}

	// BackupChecked is what was found.
	BackupChecked struct {
		Snapshot string   `json:"snapshot"`
		Packs    int      `json:"packs"`
		Bytes    int64    `json:"bytes"`
		Read     bool     `json:"read"`
		Wrong    []string `json:"wrong,omitempty"` // packs that are missing or cut off
		// Restored says that all was restored; then so many files were read.
		Restored   bool   `json:"restored,omitempty"`
		Folders    int    `json:"folders,omitempty"`
		Files      int    `json:"files,omitempty"`
		FileBytes  int64  `json:"fileBytes,omitempty"`
		Unreadable int    `json:"unreadable,omitempty"` // files besides
		Problem    string `json:"problem,omitempty"`
	}

	// PruneBackup removes old snapshots.
	PruneBackup struct {
		ID     string `path:"backup" json:"-"`
		Days   int    `json:"days" doc:"of how many days the last snapshot is kept"`
		Weeks  int    `json:"weeks"`
		Months int    `json:"months"`
		Dry    bool   `json:"dry,omitempty"`
	}

	// BackupPruned is what was removed, or would be.
	BackupPruned struct {
		Kept    []string `json:"kept"`
		Removed []string `json:"removed"`
		Packs   int      `json:"packs"`
		Bytes   int64    `json:"bytes"`
	}

	// BackupRestored is a snapshot that was restored.
	BackupRestored struct {
		BackupSnapshot
		// MissingFiles are how many files are not whole in it, MissingNames the first 100
		// of them.
		MissingFiles int      `json:"missingFiles,omitempty"`
		MissingNames []string `json:"missingNames,omitempty"`
		Problem      string   `json:"problem,omitempty"` // what of it could not be had
	}

	// RestoreBackup gets a cloud back.
	RestoreBackup struct {
		Place    BackupPlace `json:"place"`
		Snapshot string      `json:"snapshot,omitempty" doc:"its name; the newest when empty"`
	}
)
