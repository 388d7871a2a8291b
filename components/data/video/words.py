"""The words of the made platform: its topics and what they are called in titles, tags and searches."""

DEPARTMENTS: dict[str, tuple[str, ...]] = {
    "Music": ("Guitar", "Piano", "Singing", "Concerts"),
    "Games": ("Puzzles", "Strategy", "Racing", "Speedruns"),
    "Food": ("Baking", "Street Food", "Vegan", "Grilling"),
    "Sport": ("Football", "Climbing", "Running", "Yoga"),
    "Science": ("Space", "Chemistry", "Machines", "Nature"),
    "Travel": ("Trains", "Mountains", "Islands", "Cities"),
    "Comedy": ("Sketches", "Pranks", "Stand Up", "Animals"),
    "News": ("Politics", "Markets", "Weather", "Technology"),
}
TOPICS: tuple[str, ...] = tuple(topic for topics in DEPARTMENTS.values() for topic in topics)
DEPARTMENT_OF: tuple[str, ...] = tuple(name for name, topics in DEPARTMENTS.items() for _ in topics)
STALE_DAYS: dict[str, float] = {"News": 1.5, "Sport": 6.0, "Comedy": 30.0}  # interest in a video falls by e in so long; others: 90
KINDS = ("Lessons", "Stories", "Reviews", "Live")
OPENINGS = (
    "The quiet side of",
    "Everything about",
    "My first year of",
    "You will not believe this",
    "Ten minutes of",
    "Notes on",
    "Why we love",
)
FLAIRS = ("slow", "honest", "late night", "weekend", "classic", "tiny", "strange", "perfect", "cheap", "lost", "secret", "simple")
LANGUAGES = ("en", "de", "fr", "pt", "ja")
REGIONS = ("us", "gb", "de", "fr", "br", "jp")
LANGUAGE_OF_REGION = (0, 0, 1, 2, 3, 4)
REGION_SHARES = (0.34, 0.12, 0.16, 0.12, 0.16, 0.10)
AGE_BANDS = ("13-17", "18-24", "25-34", "35-49", "50-64", "65+")
AGE_SHARES = (0.10, 0.22, 0.26, 0.22, 0.13, 0.07)
CONSENT_SHARES = {"full": 0.90, "aggregated": 0.07, "minimal": 0.03}
DEVICES = ("mobile", "desktop", "tv")
SCREEN = (3, 8, 5)  # videos on a screen of each device: they count as shown together
NETWORKS = ("wifi", "wired", "5g", "4g")
NETWORKS_OF_DEVICE = ((0.50, 0.0, 0.25, 0.25), (0.55, 0.45, 0.0, 0.0), (0.75, 0.25, 0.0, 0.0))
RESOLUTIONS = ("480p", "720p", "1080p", "2160p")
RESOLUTION_SHARES = (0.08, 0.22, 0.55, 0.15)
SOUNDS = ("mono", "stereo", "surround")
SOUND_SHARES = (0.15, 0.75, 0.10)
FLAG_SHARES = {"adult": 0.010, "blocked": 0.005, "recalled": 0.002}
