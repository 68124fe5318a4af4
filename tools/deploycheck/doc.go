// Package deploycheck owns the checks of the Dockerfile and of the compose file
// that need no container engine: that they parse, that what they name exists,
// and that the hardening that the documentation promises is there. It does not
// tell whether the containers run.
package deploycheck
