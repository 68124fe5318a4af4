package schedule

// Places bounds what is under way at a time. Since anybody's endpoint may be one
// that hangs, one name, as a store's, has an eighth of the places, and one project
// half. It is used by one goroutine at a time.
type Places struct {
	most  int
	taken int
	of    map[string]int // by project and by project and name
}

// NewPlaces returns so many places.
func NewPlaces(most int) *Places { return &Places{most: most, of: make(map[string]int)} }

// Free says whether there is a place for one more.
func (p *Places) Free(project, name string) bool {
	return p.taken < p.most && p.of[project] < max(1, p.most/2) && p.of[project+"/"+name] < max(1, p.most/8)
}

// Take takes a place, also when none is free.
func (p *Places) Take(project, name string) {
	p.taken++
	p.of[project]++
	p.of[project+"/"+name]++
}

// Leave gives back a place that was taken.
func (p *Places) Leave(project, name string) {
	p.taken--
	for _, key := range []string{project, project + "/" + name} {
		if p.of[key]--; p.of[key] == 0 {
			delete(p.of, key)
		}
	}
}
