package check

// SettingName returns the name that a setting has today for one of its names,
// in lower case; ok is false when there is no such setting.
func SettingName(name string) (string, bool) {
	if now, ok := oldSettings[name]; ok {
		name = now
	}
	_, ok := settings[name]
	return name, ok
}
