"""Words that DICOM headers say an image's kind with. Free text, which may name a patient, is none.

Modalities: PS3.3 C.7.3.1.1.1. Body parts: PS3.16 annex L. Views: PS3.3 C.8.11.5 and C.8.1.2.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MODALITIES = _words("""
    AR BI BMD CR CT CTPROTOCOL DG DMS DX ECG EEG EMG EOG EPS ES GM HC HD IO IVOCT IVUS KER LEN LS MG
    MR NM OAM OCT OP OPM OPR OPT OPTBSV OPTENF OPV OSS PA POS PT PX RESP RF RG RTDOSE RTIMAGE SM SRF
    TG US VA XA XC
""")
"""Of acquisition. OT, other, says nothing."""

OBJECTS = _words("ANN AU DOC FID KO M3D PLAN PR REG RTPLAN RTRECORD RTSTRUCT RWV SEG SR STAIN")
"""What the Modality of objects that are no images says."""

VIEWS = _words("AP PA LL RL LLD RLD LLO RLO LAT LATERAL")

RELATIONSHIPS = _words("LIN LOG DISP")
"""Of pixel values to the beam's intensity: PS3.3 C.8.11.3.1.2 and C.8.7.1.1.2."""

_PARTS = {
    "head": _words("""
        HEAD SKULL BRAIN FACE FACIALBONES ORBIT EYE SINUS SINUSES JAW MANDIBLE MAXILLA TMJ EAR NOSE
        NASALBONE TEETH HEADNECK NECK CSPINE HEADNECKCHEST WHOLEBODY
    """),
    "chest": _words("""
        CHEST THORAX LUNG RIB RIBS STERNUM HEART MEDIASTINUM CLAVICLE TSPINE SHOULDER SCAPULA BREAST
        CHESTABDOMEN CHESTABDPELVIS HEADNECKCHEST NECKCHEST WHOLEBODY
    """),
    "abdomen": _words("""
        ABDOMEN LIVER KIDNEY PANCREAS SPLEEN STOMACH BOWEL COLON BLADDER PELVIS HIP SACRUM COCCYX
        SIJOINT LSPINE PROSTATE UTERUS OVARY ABDOMENPELVIS CHESTABDOMEN CHESTABDPELVIS WHOLEBODY
    """),
    "spine": _words("SPINE CSPINE TSPINE LSPINE SSPINE SACRUM COCCYX WHOLEBODY"),
    "arm": _words("""
        EXTREMITY UPPERLIMB ARM SHOULDER SCAPULA CLAVICLE HUMERUS UPPERARM ELBOW FOREARM RADIUS ULNA
        WRIST HAND FINGER THUMB WHOLEBODY
    """),
    "leg": _words("""
        EXTREMITY LOWERLIMB LEG HIP FEMUR THIGH KNEE PATELLA TIBIA FIBULA CALF LOWERLEG ANKLE FOOT
        CALCANEUS TOE WHOLEBODY
    """),
}


def regions(body_part: str) -> frozenset[str]:
    """The regions of the body that a part lies in or borders on; none of an unknown word."""
    word = body_part.replace(" ", "").replace("_", "")
    return frozenset(region for region, parts in _PARTS.items() if word in parts)
