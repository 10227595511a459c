"""The kiosk: a reading station with a touch page, an HTTP API and a record of what was answered."""
